// Pending is a collective that has been started and not yet waited for.
#pragma once

#include <memory>

namespace ninefold {

struct InFlight;  // common/comm/state.h

// Move-only. The operation advances while the caller computes (after every operation on the device) and in test and
// wait. It keeps its tensors alive: dropping a Pending lets the operation finish in the background.
class [[nodiscard]] Pending {
 public:
  // Already complete.
  Pending() = default;
  explicit Pending(std::shared_ptr<InFlight> in_flight) : in_flight_(std::move(in_flight)) {}
  Pending(Pending&&) = default;
  Pending& operator=(Pending&&) = default;

  // True once the result is in place; makes progress, never waits. The answer depends on the real time: programs that
  // shall repeat their virtual times only wait. True moves the virtual clock as waiting would have done.
  bool test();
  // Returns when the result is in place, or when the device waits for it in the host's stead: whatever the device is
  // told from then on sees it. After the world's timeout it says where this rank waits and ends the job.
  void wait();

 private:
  std::shared_ptr<InFlight> in_flight_;
};

}  // namespace ninefold
