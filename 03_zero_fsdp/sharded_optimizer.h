// ZeRO stage 1: every rank keeps whole parameters and whole gradients, but the optimizer states of its shard only. Each
// rank receives the sums of its shard's gradients (reduce_scatter, during the backward), updates its shard, and gathers
// the others' (all_gather, during the next forward): together what one all_reduce sends.
#pragma once

#include "03_zero_fsdp/sharding.h"

namespace ninefold {

class ShardedOptimizer : public Sharding {
 public:
  ShardedOptimizer(Model& model, const DataShards& groups, const ShardingPolicy& policy, const DeviceHandle& device)
      : ShardedOptimizer(model, groups, policy, {.values = true, .gradients = true}, device) {}

  void before_forward(size_t place) override { unit_at(place).wait_unsharded(); }

  void after_update() override {
    for (const auto& unit : units()) {
      unit->reshard();
      unit->unshard();
    }
  }

  void after_load() override { after_update(); }

 protected:
  using Sharding::Sharding;
};

}  // namespace ninefold
