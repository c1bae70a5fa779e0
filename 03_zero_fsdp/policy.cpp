#include "03_zero_fsdp/policy.h"

#include "common/base/check.h"

namespace ninefold {

void ShardingPolicy::declare(Options& options) {
  options.group("Sharding");
  options.add("--stage", stage, "divided over the ranks: 0 nothing, 1 optimizer, 2 and gradients, 3 and parameters",
              {.minimum = 0, .maximum = 3});
  options.add("--wrap", wrap,
              "units: patterns of layer names separated by commas, or size:N for layers of at least N "
              "parameters");
  options.add_choice<Reshard>("--reshard", reshard,
                              {{"default", Reshard::standard}, {"always", Reshard::always}, {"never", Reshard::never}},
                              "free a unit's parameters after its forward; default: all but the last unit's");
  options.add("--prefetch", prefetch, "units gathered ahead of the one at work", {.minimum = 0});
  options.add("--reduce-each-micro-batch", reduce_each_micro_batch,
              "reduce gradients after each micro-batch instead of once a step");
  options.add_choice<Offload>("--offload", offload,
                              {{"none", Offload::none}, {"pinned", Offload::pinned}, {"pageable", Offload::pageable}},
                              "host memory in which optimizer states and shards lie and are updated, if not on the "
                              "device; on the CPU the books show what would leave it");
  const std::vector<std::pair<std::string, std::optional<Dtype>>> types = {
      {"auto", std::nullopt}, {"f32", Dtype::f32}, {"bf16", Dtype::bf16}, {"f16", Dtype::f16}};
  options.add_choice<std::optional<Dtype>>(
      "--param-dtype", param_dtype, types,
      "FSDP2's mixed precision: shards stay of --dtype (f32: they are the master values), and are gathered and "
      "computed with in this type; needs --stage 3. (ZeRO's: --dtype bf16, with master values in the optimizer, at "
      "any stage)");
  options.add_choice<Dtype>("--reduce-dtype", reduce_dtype, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}},
                            "type in which gradients are summed over the ranks: f32, or that of --grad-dtype");
  options.add_choice<std::optional<Dtype>>(
      "--output-dtype", output_dtype, types,
      "type of the model's scores, from which the loss is made; auto: as computed");
  options.add_choice<std::optional<Dtype>>("--gather-dtype", gather_dtype,
                                           {{"auto", std::nullopt}, {"f8", Dtype::f8_e4m3}},
                                           "experiment: type in which parameters travel; auto: as computed; f8: e4m3 "
                                           "with one scale a unit, needs --stage 3");
}

void ShardingPolicy::settle_types(TrainOptions& train) {
  train.param_dtype = param_dtype;
  train.output_dtype = output_dtype;
  const Precision precision = train.precision();
  on_gpu = train.device == DeviceType::cuda;
  types = {precision.stored, precision.compute, precision.gradient, reduce_dtype,
           gather_dtype.value_or(precision.compute)};
}

void ShardingPolicy::validate() const {
  require(stage >= 1 || offload == Offload::none,
          "--offload needs --stage 1, 2 or 3: stage 0 divides nothing, and keeps everything on the device");
  require(!on_gpu || offload != Offload::pageable,
          "--offload pageable: a GPU cannot compute with memory that the system may page out; use --offload pinned");
  require(stage == 3 || types.compute == types.stored,
          "--param-dtype {} needs --stage 3: stage {} keeps whole parameters; --dtype {} keeps them in that type, and "
          "f32 master values in the optimizer",
          name_of(types.compute), stage, name_of(types.compute));
  require(stage == 3 || !types.quantizes(),
          "--gather-dtype f8 needs --stage 3: stage {} computes with the values that it updates", stage);
  require(reduce_dtype == Dtype::f32 || reduce_dtype == types.gradient,
          "--reduce-dtype {} needs --grad-dtype {}; gradients are summed in f32 or in their own type",
          name_of(reduce_dtype), name_of(reduce_dtype));
  require(stage >= 2 || !reduce_each_micro_batch,
          "--reduce-each-micro-batch needs --stage 2 or 3: stage {} keeps whole gradients and reduces them once a step",
          stage);
}

}  // namespace ninefold
