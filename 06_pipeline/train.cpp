// Trains a model whose stages lie on several ranks, in micro-batches, by a schedule: a table that says which rank does
// what next.
//
// ./run 06 -n 4 -- --schedule zb-h1 --micro-batches 8
#include "01_collectives/collectives.h"
#include "06_pipeline/runner/options.h"
#include "06_pipeline/runner/pipeline.h"
#include "06_pipeline/runner/predict.h"
#include "common/base/report.h"

namespace {

using namespace ninefold;
using namespace ninefold::pipeline;

struct ProgramOptions {
  PipelineOptions pipeline;
  std::string model = "llama", times;
  int64_t pp = Options::automatic, dp_replicate = 1, dp_shard = 1;
  Reshard reshard = Reshard::standard;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Pipeline");
    options.add_choice("--model", model, {"llama", "mlp", "mnist_cnn"}, "what to train");
    options.add("--pp", pp, "ranks of the pipeline; auto: the ranks left over", {.minimum = 1, .may_be_auto = true});
    pipeline.declare(options);
    options.add("--times", times, "write each stage's median times to this file, for 06/show --times");
    options.add("--dp-replicate", dp_replicate, "pipelines that each take a part of the batch", {.minimum = 1});
    options.add("--dp-shard", dp_shard, "the same, with every stage's parameters divided over them", {.minimum = 1});
    options.add_choice<Reshard>(
        "--reshard", reshard, {{"default", Reshard::standard}, {"always", Reshard::always}, {"never", Reshard::never}},
        "free a stage's divided parameters after each of its actions; default: never, as the next micro-batch needs "
        "them");
    train.declare(options);
  }

  void settle(const Options& given) {
    pipeline.validate(given, train);
    require(!given.given("--reshard") || dp_shard > 1, "--reshard is for stages that are divided; add --dp-shard 2");
    if (!times.empty()) require_writable(times, "--times");
    train.use_defaults_of(model, given);
    train.settle_checkpoint(given, model);
    train.settle_defaults(given);
  }
};

// A table of the user's own may gather stages although there is nobody to divide them with.
ShardingPolicy policy_of(const CheckedSchedule& schedule, const ProgramOptions& options) {
  ShardingPolicy policy{.stage = has_sharded_stages(schedule) ? 3 : 0, .reshard = options.reshard};
  TrainOptions train = options.train;
  policy.settle_types(train);
  return policy;
}

void write_times(const Pipeline& pipeline, const std::string& path) {
  const Times times = pipeline.times();
  if (on_first_rank()) {
    write_file_atomically(path, fmt::format("{}# in ms, for 06/show --times FILE --comm {:.6f}\n",
                                            text_of(times.stages), times.communication));
  }
}

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("06/train", "Pipeline parallelism: stages on several ranks, micro-batches by a schedule.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.settle(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"pp", mesh_size(options.pp)},
                          {"dp_replicate", mesh_size(options.dp_replicate)},
                          {"dp_shard", mesh_size(options.dp_shard)}});
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  options.pipeline.settle_micro_batches(train, data.size());
  train.resolve(data.size());
  const auto task = make_task(options.model, train);

  CheckedSchedule schedule =
      options.pipeline.schedule(mesh.size("pp"), static_cast<int>(train.micro_batches),
                                {.stage = options.dp_shard > 1 ? 3 : 0, .reshard = options.reshard});
  const ShardingPolicy policy = policy_of(schedule, options);
  const auto children = on_paper(*task, train.micro_batch, train.precision());
  const auto stages = cut(layers_of(children), schedule.stages(), options.pipeline.layers_per_stage);
  const auto model = task->make_model();
  Pipeline pipeline(*model, std::move(schedule), stages, children, mesh["pp"], *task);
  const Parallelism in_stages = divide(pipeline, *model, mesh, policy, train);
  materialize(*model, world.device(), train.precision(), train.seed);
  const ActivationsOf activations = activations_of(*task, train);
  if (world.rank() == 0) {
    fmt::print("{}\n{}\n{}", title_of(pipeline.schedule(), options.pipeline.choice.name()),
               description(stages, children, ranks_of_stages(pipeline.schedule())), pipeline.description(activations));
  }

  Trainer trainer("06/train", train, command_line, mesh, data, *task, *model,
                  pipeline.parallelism(in_stages, activations, train));
  const int exit_code = trainer.run();
  if (!options.times.empty()) write_times(pipeline, options.times);
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
