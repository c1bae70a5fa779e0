// The virtual clock of one rank: what computing costs on the machines of a Cluster.
#pragma once

#include <algorithm>
#include <optional>

#include "common/base/stopwatch.h"
#include "common/comm/cluster.h"
#include "common/tensor/device.h"

namespace ninefold {

// Seconds since it was made. It advances by computing and by waiting, and by nothing else: not while it is stopped.
class VirtualClock {
 public:
  // Without a rate computing costs the processor time of this thread.
  explicit VirtualClock(const std::optional<ComputeRate>& rate) : rate_(rate) {}

  double now() const { return rate_ || stops_ > 0 ? now_ : now_ + processor_.seconds(); }

  // An operation on the device has ended.
  void compute(const KernelCost& cost) {
    if (rate_ && stops_ == 0) now_ += std::max(cost.flops / rate_->flops, cost.bytes / rate_->memory);
  }
  // Not before `time`; returns the seconds that this took.
  double wait_until(double time) {
    const double waited = std::max(0.0, time - now_);
    now_ += waited;
    return waited;
  }

  // Between the two, nothing that the rank does is computing. They nest.
  void stop() {
    if (stops_++ == 0 && !rate_) now_ += processor_.seconds();
  }
  void go() {
    if (--stops_ == 0 && !rate_) processor_.restart();
  }

 private:
  std::optional<ComputeRate> rate_;
  double now_ = 0;
  int stops_ = 0;
  Stopwatch processor_{Clock::thread};  // since the clock last went on
};

// While it lives, the clock is stopped. Does nothing without a clock.
class ClockStop {
 public:
  explicit ClockStop(VirtualClock* clock) : clock_(clock) {
    if (clock_) clock_->stop();
  }
  ~ClockStop() {
    if (clock_) clock_->go();
  }
  ClockStop(const ClockStop&) = delete;
  ClockStop& operator=(const ClockStop&) = delete;

 private:
  VirtualClock* clock_;
};

}  // namespace ninefold
