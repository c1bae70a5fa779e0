// ZeRO stage 3, fully sharded data parallelism: a unit's whole parameters, too, exist only around its forward and its
// backward. Each is gathered while the layers before it compute.
#pragma once

#include "03_zero_fsdp/sharding.h"

namespace ninefold {

class FullySharded : public Sharding {
 public:
  FullySharded(Model& model, const ShardGroups& groups, const ShardingPolicy& policy, const DeviceHandle& device)
      : Sharding(model, groups, policy, {.values = false, .gradients = false}, device) {}

  void before_forward(size_t place) override { gather(place, walk().after(place, policy().prefetch)); }

  void after_forward(size_t place, bool backward_follows) override {
    if (!walk().keeps_after_forward(place, policy().reshard, backward_follows)) unit_at(place).reshard();
  }

  void before_backward(size_t place) override {
    gather(place, walk().before(place, policy().prefetch));
    Sharding::before_backward(place);
  }

  void after_backward(size_t place) override {
    if (walk().is_first_of_unit(place)) unit_at(place).reshard();
  }

 private:
  // The unit at work first, so that it comes first; then those that follow.
  void gather(size_t place, const std::vector<size_t>& ahead) {
    unit_at(place).unshard();
    for (const size_t unit : ahead) units()[unit]->unshard();
    unit_at(place).wait_unsharded();
  }
};

}  // namespace ninefold
