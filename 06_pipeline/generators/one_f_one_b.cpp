#include "06_pipeline/generators/one_f_one_b.h"

#include "06_pipeline/generators/lane.h"

namespace ninefold::pipeline {

Schedule one_f_one_b(int ranks, int micro_batches) {
  Schedule schedule(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    Lane lane(schedule[rank], rank, 0, micro_batches);
    // Until the first micro-batch has reached the last rank.
    for (int i = 0; i < ranks - 1 - rank; ++i) lane.forward();
    for (int i = 0; i < micro_batches; ++i) {
      lane.forward();
      lane.backward();
    }
  }
  return schedule;
}

}  // namespace ninefold::pipeline
