// When everything in a schedule happens, and how much of the ranks' time is lost.
// (the bubble rate is that of Qi, Wan, Huang, Lin 2023, "Zero Bubble Pipeline Parallelism", section 5)
#pragma once

#include <vector>

#include "06_pipeline/schedule/checked.h"
#include "06_pipeline/schedule/times.h"

namespace ninefold::pipeline {

struct Interval {
  double start = 0;
  double end = 0;
};

// A rank's part in the pipeline, from the start of its first computation to the end of its last.
struct RankTime {
  double start = 0;
  double end = 0;
  double busy = 0;  // computing

  double span() const { return end - start; }
};

struct Simulation {
  // intervals[rank][i]: when tasks(rank)[i] is done. What is of a whole stage takes no time.
  std::vector<std::vector<Interval>> intervals;
  std::vector<RankTime> ranks;
  double total = 0;  // from the start of everything, 0, to the last end

  // The longest span of a rank. Shorter than `total` where the rank that ends last began late: as steps follow each
  // other, it loses nothing by that.
  double cost() const;
  // The part of the cost in which ranks do not compute, on average over the ranks. For m micro-batches on equal stages,
  // one a rank, that is (cost - m (F + B + W)) / cost.
  double bubble() const;
};

// Every task starts as soon as the one before it in its row has ended and its message has arrived. Throws UserError
// unless there are times for every stage.
Simulation simulate(const CheckedSchedule& schedule, const Times& times);

}  // namespace ninefold::pipeline
