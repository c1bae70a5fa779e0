#include "06_pipeline/generators/zero_bubble_v.h"

#include <algorithm>

#include "06_pipeline/generators/lane.h"
#include "06_pipeline/schedule/placement.h"

namespace ninefold::pipeline {
namespace {

void split_backward(Lane& lane) {
  lane.input_gradient();
  lane.weight_gradient();
}

Row zero_bubble_v_row(int rank, int ranks, int micro_batches) {
  Row row;
  Lane down(row, stage_at(Placement::v, rank, 0, ranks), 0, micro_batches);
  Lane up(row, stage_at(Placement::v, rank, 1, ranks), 0, micro_batches);
  const int below = ranks - 1 - rank;

  // Until a micro-batch has gone down and come back up.
  for (int i = 0; i < 2 * below + 1; ++i) down.forward();
  for (int i = 0; i < rank; ++i) {
    up.forward();
    down.forward();
  }
  for (int i = 0; i < below + 1; ++i) {
    up.forward();
    split_backward(up);
  }
  // Each stage takes one in and gives one back. The rules are for at least 2p - 1 micro-batches.
  const int total = std::max(micro_batches, 2 * ranks - 1);
  while (up.forwards() < total) {
    if (down.forwards() < total) down.forward();
    split_backward(down);
    up.forward();
    split_backward(up);
  }
  // What others wait for comes first.
  for (int i = 0; i < rank; ++i) {
    down.input_gradient();
    up.input_gradient();
  }
  for (int i = 0; i < below + 1; ++i) split_backward(down);
  while (up.has_weight_gradient()) up.weight_gradient();
  while (down.has_weight_gradient()) down.weight_gradient();
  return row;
}

}  // namespace

Schedule zero_bubble_v(int ranks, int micro_batches) {
  Schedule schedule;
  for (int rank = 0; rank < ranks; ++rank) schedule.push_back(zero_bubble_v_row(rank, ranks, micro_batches));
  return schedule;
}

}  // namespace ninefold::pipeline
