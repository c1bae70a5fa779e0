#include "common/comm/pending.h"

#include "common/comm/state.h"
#include "common/comm/world.h"

namespace ninefold {

bool Pending::test() {
  if (!in_flight_) return true;
  if (!in_flight_->done) in_flight_->group.world().progress();
  if (in_flight_->done) in_flight_.reset();
  return !in_flight_;
}

void Pending::wait() {
  if (!in_flight_) return;
  const std::shared_ptr<InFlight> in_flight = std::move(in_flight_);
  in_flight->group.world().wait_until([&] { return in_flight->done; }, in_flight->call, in_flight->group);
}

}  // namespace ninefold
