// A unit's tensors and its verbs: unshard, reshard, reduce. The layers of the unit compute with views into whole
// buffers; the optimizer updates views into this rank's shard.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "03_zero_fsdp/layout.h"
#include "03_zero_fsdp/policy.h"
#include "common/comm/group.h"
#include "common/nn/parameter.h"

namespace ninefold {

// Over which ranks a unit is divided, and over which such divisions are repeated (HSDP; one rank where there are none).
struct ShardGroups {
  Group shard, replicate;
};

class Unit {
 public:
  // Which buffers stay whole for the whole run. A whole buffer's shard is a part of it; otherwise the shard is a tensor
  // of its own, and the whole exists for a moment only.
  struct Whole {
    bool values, gradients;
  };

  // To be called before `materialize`: gives the parameters their placement and what this rank owns of them. They
  // outlive the unit.
  Unit(UnitLayout layout, std::vector<Parameter*> parameters, const ShardGroups& groups, const ShardingPolicy& policy,
       Whole whole, const DeviceHandle& device);
  ~Unit();
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;

  const UnitLayout& layout() const { return layout_; }
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const ShardGroups& groups() const { return groups_; }

  // Of values that are gathered in f8, and of each parameter then. Set before the first unshard, and after each update.
  void set_scale(float scale);
  float scale() const { return scale_; }

  // Starts gathering the values of all ranks; nothing if they are gathered or on their way. It must have been waited
  // for before a layer of the unit computes.
  void unshard();
  void wait_unsharded();
  // The gathered values are used no more, or this rank has updated its shard: the next unshard gathers again.
  void reshard();

  // The layers are about to write gradients.
  void provide_gradients();
  // Called when the last of the unit's gradients is complete.
  std::function<void()> on_gradients_complete;
  // Starts summing the gradients over the shard group, each rank keeping its shard; adds to what was reduced before in
  // the same step. The whole gradients are gone when it is finished.
  void start_reduce();
  void finish_reduce();
  // The owned gradients become sums over the replicas too. Once a step, after the last finish_reduce.
  void start_all_reduce();
  // The step's reductions are over.
  void finish_step();

 private:
  enum class State { sharded, unsharding, unsharded };
  void place(size_t index);
  void count_complete();
  // Layers use views into `whole` from now on, or nothing where it is undefined.
  void use(Tensor Parameter::*tensor, const Tensor& whole);
  Tensor own_part(const Tensor& whole) const;
  void start_gather();
  void start_quantized_gather();

  UnitLayout layout_;
  std::vector<Parameter*> parameters_;
  ShardGroups groups_;
  ShardingPolicy::Types types_;
  Whole whole_;
  DeviceHandle device_;
  State state_ = State::sharded;
  Tensor values_, gradients_;  // whole; undefined while nobody needs them
  Tensor quantized_;           // whole values on their way in f8
  float scale_ = 1;
  Tensor value_shard_, gradient_shard_;  // owned
  // Of the reduction under way: what is sent, and where this rank's part of the sum goes. Kept until it is finished, so
  // that memory does not depend on how fast messages are.
  Tensor sent_, reduced_;
  Pending gather_, reduce_, all_reduce_;
  size_t complete_ = 0;  // parameters whose gradient is complete
  bool is_reducing_ = false;
  bool has_reduced_ = false;  // in this step
};

}  // namespace ninefold
