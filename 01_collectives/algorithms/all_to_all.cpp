#include "01_collectives/algorithms/all_to_all.h"

namespace ninefold::collectives {

Plan pairwise_all_to_all(int rank, int ranks) {
  Plan plan{.chunks = ranks * ranks};
  for (int distance = 1; distance < ranks; ++distance) {
    const int to = wrapped(rank + distance, ranks), from = wrapped(rank - distance, ranks);
    plan.steps.push_back(
        {receive({chunk_between(from, rank, ranks)}, from), send({chunk_between(rank, to, ranks)}, to)});
  }
  return plan;
}

}  // namespace ninefold::collectives
