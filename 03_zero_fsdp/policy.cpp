#include "03_zero_fsdp/policy.h"

#include "common/base/check.h"

namespace ninefold {

void ShardingPolicy::declare(Options& options) {
  options.group("Sharding");
  options.add("--stage", stage, "divided over the ranks: 0 nothing, 1 optimizer, 2 and gradients, 3 and parameters",
              {.minimum = 0, .maximum = 3});
  options.add("--wrap", wrap, "units: patterns of layer names separated by commas, or size:N for layers of at least N "
                              "parameters");
  options.add_choice<Reshard>(
      "--reshard", reshard, {{"default", Reshard::standard}, {"always", Reshard::always}, {"never", Reshard::never}},
      "free a unit's parameters after its forward; default: all but the last unit's");
  options.add("--prefetch", prefetch, "units gathered ahead of the one at work", {.minimum = 0});
  options.add("--reduce-each-micro-batch", reduce_each_micro_batch,
              "reduce gradients after each micro-batch instead of once a step");
}

void ShardingPolicy::validate() const {
  require(stage >= 2 || !reduce_each_micro_batch,
          "--reduce-each-micro-batch needs --stage 2 or 3: stage {} keeps whole gradients and reduces them once a step",
          stage);
}

}  // namespace ninefold
