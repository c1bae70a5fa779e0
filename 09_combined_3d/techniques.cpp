#include "09_combined_3d/parallelize.h"

namespace ninefold {

void Techniques::declare(Options& options) {
  options.group("Pipeline");
  pipeline.declare(options);
  options.group("Tensor parallelism");
  tensor.declare(options);
  sharding.declare(options);
  recomputation.declare(options);
}

void Techniques::settle(const Options& given, const Mesh& mesh, int data_ranks, TrainOptions& train) {
  const auto require_dimension = [&](std::string_view dimension, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      require(!given.given(name) || mesh.size(dimension) > 1, "{} needs --{} 2 or more, but it is 1 here", name, dimension);
    }
  };
  require_dimension("pp", {"--schedule", "--virtual-stages", "--schedule-csv", "--layers-per-stage"});
  require(!given.given("--stage") || sharding.stage == 0 || mesh.size("dp_shard") > 1 || data_ranks == 1,
          "--stage {} divides states over --dp-shard, which is 1 here: give it ranks of --dp-replicate ({})",
          sharding.stage, mesh.size("dp_replicate"));
  if (mesh.size("dp_shard") == 1) sharding.stage = 0;  // nobody to divide states with
  sharding.settle_types(train);
  sharding.validate();
  require(!sharding.output_dtype || mesh.size("tp") == 1,
          "--output-dtype is not for tensor parallelism (tp {}): leave it out", mesh.size("tp"));
  train.recomputation = recomputation.resolve();
  if (mesh.size("pp") > 1) {
    pipeline.validate(given, train);
    pipeline.settle_micro_batches(train, data_ranks);
  }
  train.resolve(data_ranks);
  tensor.division(train.llama, train.recomputation).validate(mesh.size("tp"), train.length);
}

}  // namespace ninefold
