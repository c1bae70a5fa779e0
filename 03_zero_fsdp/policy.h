// What a user may decide about sharding.
#pragma once

#include <optional>
#include <string>

#include "common/base/options.h"
#include "common/train/options.h"

namespace ninefold {

// Whether a unit frees its gathered parameters between its forward and its backward. `standard` frees them, but for the
// last unit, whose backward comes at once.
enum class Reshard { standard, always, never };

struct ShardingPolicy {
  // ZeRO's stages: what is divided over the ranks. 1: optimizer; 2: and gradients; 3: and parameters.
  int64_t stage = 3;
  // Units: patterns of layer names, separated by commas, or "size:N" for layers of at least N parameters.
  std::string wrap = "layers.*";
  Reshard reshard = Reshard::standard;
  // So many units are gathered ahead of the one at work.
  int64_t prefetch = 1;
  // Gradients are reduced after each micro-batch; otherwise once a step, and whole gradients are kept until then.
  bool reduce_each_micro_batch = false;
  // Mixed precision, as FSDP2's MixedPrecisionPolicy. `param_dtype`: gathered and computed with; absent: as it is
  // stored. `reduce_dtype`: in which gradients travel and are summed. `output_dtype`: of the model's scores; absent: as
  // computed.
  std::optional<Dtype> param_dtype{}, output_dtype{};
  Dtype reduce_dtype = Dtype::f32;
  // Shards and optimizer states lie in the host's memory.
  bool offload = false;

  // `stored`: of what each rank owns. `compute`: of what layers compute with. `gradient`: what layers write. `reduce`:
  // how gradients travel and are summed; what is owned of them is of type `gradient`. Settled by settle_types.
  struct Types {
    Dtype stored = Dtype::f32, compute = Dtype::f32, gradient = Dtype::f32, reduce = Dtype::f32;
  } types{};

  void declare(Options& options);
  // Decides `types`, and tells the trainer what the policy decides for it.
  void settle_types(TrainOptions& train);
  // After settle_types. Throws UserError where policies contradict each other.
  void validate() const;
};

}  // namespace ninefold
