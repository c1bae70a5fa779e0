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

// Whether what a rank owns lies in the host's memory: pinned where the device copies from it fastest, or pageable. On
// the CPU the two are one, and the books show under `host` what would leave the device.
enum class Offload { none, pinned, pageable };

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
  // Of optimizer states and of the shards of what is divided; what stays whole stays on the device.
  Offload offload = Offload::none;
  // Values travel in f8_e4m3, with a scale a unit; absent: as they are computed with. An experiment.
  std::optional<Dtype> gather_dtype{};

  // `stored`: of what each rank owns. `compute`: of what layers compute with. `gradient`: what layers write. `reduce`:
  // how gradients travel and are summed; what is owned of them is of type `gradient`. `gather`: how values travel.
  // Settled by settle_types.
  struct Types {
    Dtype stored = Dtype::f32, compute = Dtype::f32, gradient = Dtype::f32, reduce = Dtype::f32, gather = Dtype::f32;
    bool quantizes() const { return gather == Dtype::f8_e4m3; }
  } types{};
  bool on_gpu = false;  // settled by settle_types too

  bool offloads_values() const { return offload != Offload::none && stage == 3; }
  bool offloads_gradients() const { return offload != Offload::none && stage >= 2; }
  bool offloads_optimizer() const { return offload != Offload::none; }

  void declare(Options& options);
  // Decides `types`, and tells the trainer what the policy decides for it.
  void settle_types(TrainOptions& train);
  // After settle_types. Throws UserError where policies contradict each other.
  void validate() const;
};

}  // namespace ninefold
