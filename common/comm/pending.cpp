#include "common/comm/pending.h"

#include "common/comm/state.h"
#include "common/comm/world.h"

namespace ninefold {

bool Pending::test() {
  if (!in_flight_) return true;
  if (!in_flight_->done) in_flight_->group.world().progress();
  if (!in_flight_->done) return false;
  in_flight_->group.world().join(*in_flight_);
  in_flight_.reset();
  return true;
}

void Pending::wait() {
  if (!in_flight_) return;
  const std::shared_ptr<InFlight> in_flight = std::move(in_flight_);
  World& world = in_flight->group.world();
  const auto is_over = [&] {
    const auto& work = in_flight->started.work;
    return in_flight->done || (work && work->is_awaited_by_device());
  };
  world.wait_until(is_over, in_flight->call, in_flight->group);
  if (!in_flight->done) world.leave_to_device(*in_flight);
  world.join(*in_flight);
}

}  // namespace ninefold
