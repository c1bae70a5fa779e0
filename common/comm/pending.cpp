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
  world.wait_until([&] { return in_flight->done; }, in_flight->call, in_flight->group);
  world.join(*in_flight);
}

}  // namespace ninefold
