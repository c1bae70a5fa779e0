// Trains a Llama whose optimizer states, gradients and parameters are divided over the ranks: ZeRO stages 1 to 3, FSDP.
//
// ./run 03 -n 2 -- --stage 3
#include "01_collectives/collectives.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  ShardingMesh mesh;
  TrainOptions train;

  void declare(Options& options) {
    policy.declare(options);
    mesh.declare(options);
    recomputation.declare(options);
    train.declare(options);
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("03/train", "ZeRO stages 1 to 3 and fully sharded data parallelism.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.settle_checkpoint(command_line);
  train.settle_defaults(command_line);
  options.policy.settle_types(train);
  options.policy.validate();
  train.recomputation = options.recomputation.resolve();

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh = options.mesh.over(world);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  train.resolve(data.size());
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  checkpoint_activations(*model, "layers.*", train.recomputation);
  const Parallelism parallelism = divide(*model, mesh, options.policy, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("03/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
