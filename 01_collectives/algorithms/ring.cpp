#include "01_collectives/algorithms/ring.h"

namespace ninefold::collectives {

Plan ring_all_gather(int rank, int ranks) {
  const int next = wrapped(rank + 1, ranks), previous = wrapped(rank - 1, ranks);
  Plan plan{.chunks = ranks};
  for (int step = 0; step < ranks - 1; ++step) {
    const int newest = wrapped(rank - step, ranks);
    plan.steps.push_back({receive({wrapped(newest - 1, ranks)}, previous), send({newest}, next)});
  }
  return plan;
}

Plan ring_reduce_scatter(int rank, int ranks) {
  const int next = wrapped(rank + 1, ranks), previous = wrapped(rank - 1, ranks);
  Plan plan{.chunks = ranks};
  for (int step = 0; step < ranks - 1; ++step) {
    const int leaving = wrapped(rank - 1 - step, ranks);
    const bool is_own = step == ranks - 2;
    plan.steps.push_back({reduce({wrapped(leaving - 1, ranks)}, previous, is_own), send({leaving}, next)});
  }
  return plan;
}

Plan ring_all_reduce(int rank, int ranks) {
  Plan plan = ring_reduce_scatter(rank, ranks);
  plan += ring_all_gather(rank, ranks);
  return plan;
}

}  // namespace ninefold::collectives
