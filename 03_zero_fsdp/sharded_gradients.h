// ZeRO stage 2: stage 1, but a unit's whole gradients exist only from its backward to the end of their reduction. What
// stays is the shard.
#pragma once

#include "03_zero_fsdp/sharded_optimizer.h"

namespace ninefold {

class ShardedGradients : public ShardedOptimizer {
 public:
  ShardedGradients(Model& model, const DataShards& groups, const ShardingPolicy& policy, const DeviceHandle& device)
      : ShardedOptimizer(model, groups, policy, {.values = true, .gradients = false}, device) {}
};

}  // namespace ninefold
