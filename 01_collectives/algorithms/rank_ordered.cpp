#include "01_collectives/algorithms/rank_ordered.h"

#include "01_collectives/algorithms/ring.h"

namespace ninefold::collectives {

Plan ordered_reduce_scatter(int rank, int ranks) {
  Step step;
  // Everybody begins with another peer, so that nobody is asked by all at once.
  for (int distance = 1; distance < ranks; ++distance) step.push_back(collect({rank}, wrapped(rank - distance, ranks)));
  for (int distance = 1; distance < ranks; ++distance) {
    const int peer = wrapped(rank + distance, ranks);
    step.push_back(send({peer}, peer));
  }
  return {.chunks = ranks, .steps = {step}};
}

Plan ordered_all_reduce(int rank, int ranks) {
  Plan plan = ordered_reduce_scatter(rank, ranks);
  plan += ring_all_gather(rank, ranks);
  return plan;
}

Plan ordered_reduce(int rank, int ranks, int root) {
  if (rank != root) return {.chunks = 1, .steps = {{send({0}, root)}}};
  Step step;
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer != root) step.push_back(collect({0}, peer));
  }
  return {.chunks = 1, .steps = {step}};
}

}  // namespace ninefold::collectives
