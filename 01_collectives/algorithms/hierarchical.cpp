#include "01_collectives/algorithms/hierarchical.h"

#include "01_collectives/algorithms/ring.h"

namespace ninefold::collectives {
namespace {

Plan without_completion(Plan plan) {
  for (Step& step : plan.steps) {
    for (Action& action : step) action.completes = false;
  }
  return plan;
}

}  // namespace

Plan hierarchical_all_reduce(int rank, int ranks, int group) {
  const int groups = ranks / group;
  if (group == 1 || groups == 1) return ring_all_reduce(rank, ranks);
  const int in_group = rank % group, first_of_group = rank - in_group;
  // There is a chunk for every rank; part i of a group's g parts is made of `groups` chunks.
  const auto member = [&](int index) { return first_of_group + index; };
  const auto part = [&](Chunks chunks) { return Chunks{chunks.first * groups, chunks.count * groups}; };
  const auto counterpart = [&](int index) { return index * group + in_group; };
  const auto in_own_part = [&](Chunks chunks) { return Chunks{in_group * groups + chunks.first, chunks.count}; };

  Plan plan{.chunks = ranks};
  plan += renamed(without_completion(ring_reduce_scatter(in_group, group)), member, part);
  plan += renamed(ring_all_reduce(rank / group, groups), counterpart, in_own_part);
  plan += renamed(ring_all_gather(in_group, group), member, part);
  return plan;
}

int balanced_group(int ranks) {
  int largest = 1;
  for (int divisor = 2; divisor * divisor <= ranks; ++divisor) {
    if (ranks % divisor == 0) largest = divisor;
  }
  return largest;
}

}  // namespace ninefold::collectives
