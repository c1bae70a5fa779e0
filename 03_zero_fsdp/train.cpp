// Trains a Llama whose optimizer states, gradients and parameters are divided over the ranks: ZeRO stages 1 to 3, FSDP.
//
// ./run 03 -n 2 -- --stage 3
#include "01_collectives/collectives.h"
#include "02_ddp/replicate.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/sharding.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  int64_t dp_replicate = 1, dp_shard = Options::automatic;
  TrainOptions train;

  void declare(Options& options) {
    policy.declare(options);
    options.add("--dp-shard", dp_shard, "ranks over which states are divided; auto: the ranks left over",
                {.minimum = 1, .may_be_auto = true});
    options.add("--dp-replicate", dp_replicate, "ranks that hold copies of each shard (HSDP)", {.minimum = 1});
    recomputation.declare(options);
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_optimizer(options);
    train.declare_report(options);
  }
};

// Stage 0 is chapter 02: every rank holds everything.
Parallelism divide(Model& model, const Mesh& mesh, const Group& data, const ProgramOptions& options) {
  const TrainOptions& train = options.train;
  const DeviceHandle& device = mesh.world().device();
  if (options.policy.stage == 0) {
    const DdpOptions ddp{.reduce = options.policy.reduce_dtype};
    const auto replicated = std::make_shared<Replicated>(model, data, ddp, device, train.grad_dtype);
    Parallelism parallelism = replicated->parallelism();
    parallelism.technique = replicated;
    return parallelism;
  }
  const std::shared_ptr<Sharding> sharding =
      shard(model, {mesh["dp_shard"], mesh["dp_replicate"]}, options.policy, device);
  if (mesh.world().rank() == 0 && train.verbose) fmt::print("{}", sharding->description());
  Parallelism parallelism = sharding->parallelism(train.micro_batches);
  parallelism.technique = sharding;
  return parallelism;
}

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("03/train", "ZeRO stages 1 to 3 and fully sharded data parallelism.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.settle_check(command_line);
  options.policy.settle_types(train);
  options.policy.validate();
  train.recomputation = options.recomputation.resolve();

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world,
                  {{"dp_replicate", mesh_size(options.dp_replicate)}, {"dp_shard", mesh_size(options.dp_shard)}});
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  train.resolve(data.size());
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  checkpoint_activations(*model, "layers.*", train.recomputation);
  const Parallelism parallelism = divide(*model, mesh, data, options);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("03/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
