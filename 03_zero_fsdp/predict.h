// What sharding will cost, from the layout of the units and the policy alone: the bytes of each kind of memory on every
// rank, and the collectives it calls.
#pragma once

#include <vector>

#include "03_zero_fsdp/plan.h"
#include "common/tensor/memory.h"

namespace ninefold {

// Bytes per rank while a step of `micro_batches` is trained: parameters, gradients, gathered and host, to which what is
// offloaded moves, the optimizer's bytes included.
void predict_memory(MemoryByKind& bytes, const std::vector<UnitLayout>& units, const Walk& walk,
                    const ShardingPolicy& policy, int64_t micro_batches);

// Calls in one step, each for the whole of a unit: its values in the type they travel in, its gradients in that of
// reduction.
struct UnitCalls {
  int64_t all_gathers = 0, reduce_scatters = 0;
};
// One entry a unit.
std::vector<UnitCalls> predict_calls(const std::vector<UnitLayout>& units, const Walk& walk,
                                     const ShardingPolicy& policy, int64_t micro_batches);

// The paper's own account, for sizes that are only numbers: p, g and o bytes a parameter, of which stage 1 divides o by
// the ranks, stage 2 g too, stage 3 all three.
struct ElementBytes {
  double parameter, gradient, optimizer;
};
struct StateBytes {
  double parameters, gradients, optimizer;
  double total() const { return parameters + gradients + optimizer; }
};
StateBytes zero_bytes(double parameters, int64_t ranks, int64_t stage, const ElementBytes& bytes);

}  // namespace ninefold
