#include "01_collectives/algorithms/recursive.h"

namespace ninefold::collectives {
namespace {

// `inner` makes the plan among a power of two of ranks. Ranks 0, 2, 4, … of the first 2 (n - p) take no part in it:
// their right neighbour brings their data in.
Plan folded(int rank, int ranks, Plan (*inner)(int rank, int ranks)) {
  const int power = power_of_two_below(ranks);
  const int folded_ranks = 2 * (ranks - power);
  if (folded_ranks == 0) return inner(rank, ranks);

  const auto outer_rank = [&](int inner_rank) {
    return inner_rank < folded_ranks / 2 ? 2 * inner_rank + 1 : inner_rank + folded_ranks / 2;
  };
  const bool is_left = rank < folded_ranks && rank % 2 == 0, is_right = rank < folded_ranks && rank % 2 == 1;
  const int inner_rank = rank < folded_ranks ? rank / 2 : rank - folded_ranks / 2;
  Plan inside = renamed(inner(inner_rank, power), outer_rank, [](Chunks chunks) { return chunks; });
  const Chunks all{0, inside.chunks};
  if (is_left) inside.steps.assign(inside.steps.size(), {});

  Plan plan{.chunks = inside.chunks, .steps = {{}}};
  if (is_left) plan.steps[0] = {send(all, rank + 1)};
  if (is_right) plan.steps[0] = {reduce(all, rank - 1, false)};
  plan += inside;
  plan.steps.push_back({});
  if (is_left) plan.steps.back() = {receive(all, rank + 1)};
  if (is_right) plan.steps.back() = {send(all, rank - 1)};
  return plan;
}

Plan doubling(int rank, int ranks) {
  Plan plan{.chunks = 1};
  for (int distance = 1; distance < ranks; distance *= 2) {
    const int partner = rank ^ distance;
    plan.steps.push_back({reduce({0}, partner, 2 * distance == ranks), send({0}, partner)});
  }
  return plan;
}

// The `count` neighbouring chunks, a power of two, among which chunk `rank` is.
Chunks block_around(int rank, int count) { return {rank / count * count, count}; }

Plan halving_then_doubling(int rank, int ranks) {
  Plan plan{.chunks = ranks};
  for (int distance = ranks / 2; distance > 0; distance /= 2) {
    const int partner = rank ^ distance;
    plan.steps.push_back(
        {reduce(block_around(rank, distance), partner, distance == 1), send(block_around(partner, distance), partner)});
  }
  for (int distance = 1; distance < ranks; distance *= 2) {
    const int partner = rank ^ distance;
    plan.steps.push_back(
        {receive(block_around(partner, distance), partner), send(block_around(rank, distance), partner)});
  }
  return plan;
}

}  // namespace

Plan recursive_doubling_all_reduce(int rank, int ranks) { return folded(rank, ranks, doubling); }
Plan halving_doubling_all_reduce(int rank, int ranks) { return folded(rank, ranks, halving_then_doubling); }

}  // namespace ninefold::collectives
