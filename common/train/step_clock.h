// Follows a run from step to step in virtual time, and the communication that its computing does not hide.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/comm/world.h"

namespace ninefold {

// Exposed communication: milliseconds a step in which a rank did nothing but wait in its technique's calls, in the mean
// of the steps after the warm-up. Of the rank with most, for wall and virtual time each.
struct ExposedCommunication {
  double wall_milliseconds = 0;
  double virtual_milliseconds = 0;               // 0 without a cluster
  std::map<std::string, double> by_dimension{};  // of the virtual ones
};

// The first steps, in which caches fill and buffers are allocated, count in no figure of a run, unless it has no
// others.
inline constexpr size_t warm_up_steps = 2;
// Of `steps`.
constexpr size_t first_counted(size_t steps) { return steps > warm_up_steps ? warm_up_steps : 0; }

// Made before the first step. What is outside the books between two steps (checking, evaluating, printing) takes no
// virtual time. Loading the batch is inside: it is the program's own work on any machine, though it costs nothing under
// a compute rate, because it is no kernel.
class StepClock {
 public:
  explicit StepClock(World& world);

  // At the end of each step, on all ranks: by how many milliseconds the largest clock of all ranks has grown since the
  // step before. 0 without a cluster.
  double end_step();

  // After the last step, on all ranks.
  ExposedCommunication exposed() const;

 private:
  // Seconds in which this rank has waited so far.
  struct Waited {
    double wall;
    std::map<std::string, double> by_dimension;
  };
  Waited waited() const;
  double largest_clock() const;

  World& world_;
  double clock_ = 0;            // the largest at the last step's end
  std::vector<Waited> waited_;  // at the start, and at each step's end
};

}  // namespace ninefold
