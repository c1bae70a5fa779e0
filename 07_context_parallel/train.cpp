// Trains a Llama whose sequences are shared by several ranks; with --dp-shard and --dp-replicate beside it.
//
// ./run 07 -n 2 -- --cp 2 --layout zigzag
#include "01_collectives/collectives.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "07_context_parallel/options.h"
#include "07_context_parallel/predict.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  ContextParallelOptions context;
  int64_t dp_replicate = 1, dp_shard = 1, cp = Options::automatic;
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Context parallelism");
    options.add("--cp", cp, "ranks that share each sequence; auto: the ranks left over",
                {.minimum = 1, .may_be_auto = true});
    context.declare(options);
    policy.declare(options);
    options.add("--dp-shard", dp_shard, "ranks over which states are divided, together with those of --cp",
                {.minimum = 1});
    options.add("--dp-replicate", dp_replicate, "ranks that hold copies of each shard (HSDP)", {.minimum = 1});
    recomputation.declare(options);
    train.declare(options);
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("07/train", "Context parallelism: every sequence divided over the ranks.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.settle_checkpoint(command_line);
  train.settle_defaults(command_line);
  // With one data rank the ranks of --cp divide states only where that is asked for.
  if (options.dp_shard == 1 && !command_line.given("--stage")) options.policy.stage = 0;
  options.policy.settle_types(train);
  options.policy.validate();
  train.recomputation = options.recomputation.resolve();

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"dp_replicate", mesh_size(options.dp_replicate)},
                          {"dp_shard", mesh_size(options.dp_shard)},
                          {"cp", mesh_size(options.cp)}});
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  train.resolve(data.size());
  const SequenceLayout layout = options.context.sequence_layout(mesh.size("cp"));
  layout.validate(train.length, train.llama.heads, train.llama.kv_heads);
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  const ContextGroups groups = context_parallel(*model, mesh["cp"], layout, options.context.ring);
  checkpoint_activations(*model, "layers.*", train.recomputation);
  const LlamaContext context{train.llama, layout, train.recomputation};
  const Parallelism parallelism = beside(divide(*model, mesh, options.policy, train), groups, context, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("07/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
