#include "06_pipeline/generators/zero_bubble.h"

#include "06_pipeline/generators/lane.h"

namespace ninefold::pipeline {
namespace {

// `early` forwards, then in turn I, the W of `delay` micro-batches before, and another forward.
Row zero_bubble_row(int stage, int micro_batches, int early, int delay) {
  Row row;
  Lane lane(row, stage, 0, micro_batches);
  for (int i = 0; i < early; ++i) lane.forward();
  for (int i = 0; i < micro_batches; ++i) {
    lane.input_gradient();
    if (i >= delay) lane.weight_gradient();
    lane.forward();
  }
  while (lane.has_weight_gradient()) lane.weight_gradient();
  return row;
}

}  // namespace

Schedule zero_bubble_h1(int ranks, int micro_batches) {
  Schedule schedule;
  for (int rank = 0; rank < ranks; ++rank) {
    schedule.push_back(zero_bubble_row(rank, micro_batches, ranks - rank, rank));
  }
  return schedule;
}

Schedule zero_bubble_h2(int ranks, int micro_batches) {
  Schedule schedule;
  for (int rank = 0; rank < ranks; ++rank) {
    schedule.push_back(zero_bubble_row(rank, micro_batches, 2 * (ranks - rank) - 1, 2 * rank));
  }
  return schedule;
}

}  // namespace ninefold::pipeline
