// What the three stages share: the units of a model, the layers that announce when a unit is at work, and the reduction
// of gradients while the backward goes on. The stages differ in what they do when a layer begins and ends:
//   sharded_optimizer.h   ZeRO 1: every rank updates its shard, then gathers the others'
//   sharded_gradients.h   ZeRO 2: the same, and whole gradients exist for a moment only
//   fully_sharded.h       ZeRO 3 = FSDP: whole parameters, too
// (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054; Zhao et al. 2023, PyTorch FSDP, arXiv 2304.11277)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "02_ddp/data_groups.h"
#include "03_zero_fsdp/predict.h"
#include "03_zero_fsdp/unit.h"
#include "common/nn/model.h"
#include "common/train/trainer.h"

namespace ninefold {

// The groups of every parameter: a unit is made of parameters that have the same. `cut`: over which other techniques
// have cut parameters, along no dimension of the data.
struct DataShards {
  DataGroups shard, replicate;
  std::vector<Group> cut{};

  ShardGroups of(const Parameter& parameter) const { return {shard.of(parameter), replicate.of(parameter)}; }
  // All that hold parts of parameters.
  std::vector<Group> parts() const {
    std::vector<Group> groups = cut;
    groups.insert(groups.begin(), shard.all());
    return groups;
  }
};

class Sharding {
 public:
  // To be called on a model without storage, before `materialize`, after every other technique has wrapped its layers.
  // `model` and `device` outlive it.
  Sharding(Model& model, const DataShards& groups, const ShardingPolicy& policy, Unit::Whole whole,
           const DeviceHandle& device);
  virtual ~Sharding() = default;
  Sharding(const Sharding&) = delete;
  Sharding& operator=(const Sharding&) = delete;

  // A layer of unit `unit` is about to be run, or has been; `place` counts the layers of all units in forward order.
  virtual void before_forward(size_t place) = 0;
  virtual void after_forward(size_t /*place*/, bool /*backward_follows*/) {}
  virtual void before_backward(size_t place) { unit_at(place).provide_gradients(); }
  virtual void after_backward(size_t /*place*/) {}

  // After a step's last backward: returns when every gradient owned here is a sum over all data ranks.
  void reduce_gradients();
  // After the optimizer has updated the shards.
  virtual void after_update() {}
  // After they were read from a file, before the first step.
  virtual void after_load() {}

  // The units, in the order in which the forward first needs them; a root unit, which holds what no other does, is
  // called "root" and comes first.
  const std::vector<std::unique_ptr<Unit>>& units() const { return units_; }
  const std::string& name_of_unit_at(size_t place) const { return units_[walk_.unit_at(place)]->layout().name; }
  // One line a unit: name, parameters, elements, padding, elements of a shard.
  std::string description() const;

  // Bit-identical to the serial run where every sum is in rank order, as the serial run's is, and made in f32;
  // gradients of another type must be rounded once, after all of it.
  Numerics numerics() const;

  // What the trainer needs to know, for steps of so many micro-batches.
  Parallelism parallelism(int64_t micro_batches);

 protected:
  Unit& unit_at(size_t place) { return *units_[walk_.unit_at(place)]; }
  // The order in which layers of units are entered and left.
  const Walk& walk() const { return walk_; }
  const ShardingPolicy& policy() const { return policy_; }
  const DataShards& groups() const { return groups_; }

 private:
  std::vector<UnitLayout> layouts() const;
  void predict_traffic(TrafficLedger& ledger, int64_t steps, int64_t micro_batches) const;
  // When all gradients of a unit are complete. One reduction at a time: that bounds the whole gradients to those of two
  // units.
  void start_reduce(Unit& unit);
  void finish_reduce();

  DataShards groups_;
  ShardingPolicy policy_;
  std::vector<std::unique_ptr<Unit>> units_;
  Walk walk_;
  Unit* reducing_ = nullptr;
};

// Shards `model` by `policy.stage` (1, 2 or 3).
std::unique_ptr<Sharding> shard(Model& model, const DataShards& groups, const ShardingPolicy& policy,
                                const DeviceHandle& device);

}  // namespace ninefold
