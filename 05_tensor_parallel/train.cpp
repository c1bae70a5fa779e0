// Trains a Llama whose layers are divided over the ranks, by heads, features and vocabulary; with --dp-shard and
// --dp-replicate in two dimensions and more.
//
// ./run 05 -n 2 -- --tp 2
#include "01_collectives/collectives.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "05_tensor_parallel/f8.h"
#include "05_tensor_parallel/parallelize.h"
#include "05_tensor_parallel/predict.h"
#include "05_tensor_parallel/table.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  int64_t dp_replicate = 1, dp_shard = 1, tp = Options::automatic;
  TensorParallelOptions tensor;
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Tensor parallelism");
    options.add("--tp", tp, "ranks that share each layer; auto: the ranks left over",
                {.minimum = 1, .may_be_auto = true});
    tensor.declare(options);
    policy.declare(options);
    options.add("--dp-shard", dp_shard, "ranks over which states are divided", {.minimum = 1});
    options.add("--dp-replicate", dp_replicate, "ranks that hold copies of each shard (HSDP)", {.minimum = 1});
    recomputation.declare(options);
    train.declare(options);
  }
};

void announce(Model& model, const LlamaDivision& division, const Group& group, const ProgramOptions& options,
              const Options& given) {
  const std::string warning = warning_of_slow_links(group);
  if (!on_first_rank()) return;
  fmt::print("{}{}", options.tensor.without_effect(group.size(), given), warning);
  if (!options.train.verbose) return;
  const auto layers = resolve(model, division.plan(), group.size(), group.name()).layers;
  fmt::print("{}", plan_table(layers, division.loss_parallel, group.size()));
}

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("05/train", "Tensor and sequence parallelism: every layer divided over the ranks.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.settle_checkpoint(command_line);
  train.settle_defaults(command_line);
  require(options.dp_shard > 1 || options.policy.stage == 0 || !command_line.given("--stage"),
          "--stage {} divides states over --dp-shard, but that is 1; add --dp-shard 2", options.policy.stage);
  if (options.dp_shard == 1) options.policy.stage = 0;  // nobody to divide states with
  options.policy.settle_types(train);
  options.policy.validate();
  require(!options.policy.output_dtype, "--output-dtype is not for tensor parallelism: leave it out");
  train.f8_linears = options.tensor.f8.pattern(command_line, train.precision().compute);
  train.recomputation = options.recomputation.resolve();

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"dp_replicate", mesh_size(options.dp_replicate)},
                          {"dp_shard", mesh_size(options.dp_shard)},
                          {"tp", mesh_size(options.tp)}});
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  train.resolve(data.size());
  const auto task = make_task("llama", train);
  const LlamaDivision division = options.tensor.division(train);
  division.validate(mesh.size("tp"), train.length);

  const auto model = task->make_model();
  announce(*model, division, mesh["tp"], options, command_line);
  const auto tensor_parallel = parallelize(*model, mesh["tp"], division.plan());
  checkpoint_activations(*model, "layers.*", train.recomputation);
  Parallelism parallelism =
      beside(divide(*model, mesh, options.policy, train), *tensor_parallel, mesh["tp"], division,
             {{.part = {.layers = train.llama.layers}, .micro_batches = train.micro_batches}}, train);
  // Those that are gathered in f8 have their scales from there.
  const bool need_scales = !train.f8_linears.empty() && !options.policy.types.quantizes();
  if (need_scales) parallelism = with_weight_scales(parallelism, *model, train.f8_linears, mesh);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("05/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
