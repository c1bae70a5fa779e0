// SIGTERM as a request: batch systems send it some time before they kill.
#pragma once

namespace ninefold {

// While it lives, a SIGTERM is noted instead of ending the process; a second one ends it. One at a time.
class Termination {
 public:
  Termination();
  ~Termination();
  Termination(const Termination&) = delete;
  Termination& operator=(const Termination&) = delete;

  bool is_requested() const;
};

}  // namespace ninefold
