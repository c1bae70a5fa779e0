#include "01_collectives/algorithms/bruck.h"

#include <algorithm>

namespace ninefold::collectives {

Plan bruck_all_gather(int rank, int ranks) {
  Plan plan{.chunks = ranks};
  for (int known = 1; known < ranks; known *= 2) {
    const int before = wrapped(rank - known, ranks), after = wrapped(rank + known, ranks);
    const int count = std::min(known, ranks - known);
    plan.steps.push_back({receive({after, count}, after), send({rank, count}, before)});
  }
  return plan;
}

Plan dissemination_barrier(int rank, int ranks) {
  Plan plan{.chunks = 1};
  for (int distance = 1; distance < ranks; distance *= 2) {
    plan.steps.push_back(
        {reduce({0}, wrapped(rank - distance, ranks), false), send({0}, wrapped(rank + distance, ranks))});
  }
  return plan;
}

}  // namespace ninefold::collectives
