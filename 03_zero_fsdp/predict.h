// What sharding will cost, from the layout of the units and the policy alone: the bytes of each kind of memory on every
// rank, and the bytes sent.
#pragma once

#include <vector>

#include "03_zero_fsdp/plan.h"
#include "common/comm/traffic.h"
#include "common/tensor/memory.h"

namespace ninefold {

// Bytes per rank while a step of `micro_batches` is trained: parameters, gradients, gathered and host.
void predict_memory(MemoryByKind& bytes, const std::vector<UnitLayout>& units, const Walk& walk,
                    const ShardingPolicy& policy, int64_t micro_batches);

// What one rank calls and sends in one step, one entry a call.
struct Traffic {
  int64_t all_gathers = 0, all_gather_bytes = 0;
  int64_t reduce_scatters = 0, reduce_scatter_bytes = 0;
};
Traffic predict_traffic(const std::vector<UnitLayout>& units, const Walk& walk, const ShardingPolicy& policy,
                        int64_t micro_batches);

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
