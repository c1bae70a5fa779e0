#include "01_collectives/algorithms/binomial_tree.h"

#include <algorithm>

namespace ninefold::collectives {

Plan binomial_broadcast(int rank, int ranks, int root) {
  const int from_root = wrapped(rank - root, ranks);
  Plan plan{.chunks = 1};
  for (int distance = 1; distance < ranks; distance *= 2) {
    Step step;
    if (from_root < distance && from_root + distance < ranks) {
      step = {send({0}, wrapped(rank + distance, ranks))};
    } else if (distance <= from_root && from_root < 2 * distance) {
      step = {receive({0}, wrapped(rank - distance, ranks))};
    }
    plan.steps.push_back(step);
  }
  return plan;
}

Plan binomial_reduce(int rank, int ranks, int root) {
  Plan plan = binomial_broadcast(rank, ranks, root);
  std::reverse(plan.steps.begin(), plan.steps.end());
  for (Step& step : plan.steps) {
    const bool is_last = &step == &plan.steps.back();
    for (Action& action : step) {
      const bool sent_there = action.kind == Action::Kind::send;
      action = sent_there ? reduce({0}, action.peer, is_last && rank == root) : send({0}, action.peer);
    }
  }
  return plan;
}

}  // namespace ninefold::collectives
