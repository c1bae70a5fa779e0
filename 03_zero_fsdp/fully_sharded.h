// ZeRO stage 3, fully sharded data parallelism: a unit's whole parameters, too, exist only around its forward and its
// backward. Each is gathered while the layers before it compute.
#pragma once

#include "03_zero_fsdp/gather_f8.h"
#include "03_zero_fsdp/sharding.h"

namespace ninefold {

class FullySharded : public Sharding {
 public:
  FullySharded(Model& model, const DataShards& groups, const ShardingPolicy& policy, const DeviceHandle& device)
      : Sharding(model, groups, policy, {.values = false, .gradients = false}, device), device_(device) {}

  void before_forward(size_t place) override {
    if (policy().types.quantizes() && !has_scales_) share_scales();
    gather(place, walk().after(place, policy().prefetch));
  }

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

  void after_update() override {
    if (policy().types.quantizes()) share_scales();
  }

 private:
  // The unit at work first, so that it comes first; then those that follow.
  void gather(size_t place, const std::vector<size_t>& ahead) {
    unit_at(place).unshard();
    for (const size_t unit : ahead) units()[unit]->unshard();
    unit_at(place).wait_unsharded();
  }

  void share_scales() {
    ninefold::share_scales(units(), groups().parts(), device_);
    has_scales_ = true;
  }

  DeviceHandle device_;
  bool has_scales_ = false;
};

}  // namespace ninefold
