// Time since a moment, by the wall clock or by the processor time of the calling thread.
#pragma once

#include <ctime>

namespace ninefold {

// `thread` stands still while another process has the core, or while the thread waits.
enum class Clock { wall, thread };

class Stopwatch {
 public:
  explicit Stopwatch(Clock clock = Clock::wall)
      : clock_(clock == Clock::wall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID), begin_(now()) {}

  // Seconds since construction or the last restart.
  double seconds() const { return now() - begin_; }
  // The same, and starts again from zero.
  double restart() {
    const double before = begin_;
    begin_ = now();
    return begin_ - before;
  }

 private:
  double now() const {
    timespec time{};
    clock_gettime(clock_, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  clockid_t clock_;
  double begin_;
};

}  // namespace ninefold
