// Trains a model whose stages lie on several ranks, in micro-batches, by a schedule: a table that says which rank does
// what next.
//
// ./run 06 -n 4 -- --schedule zb-h1 --micro-batches 8
#include "01_collectives/collectives.h"
#include "02_ddp/replicate.h"
#include "06_pipeline/generators/choice.h"
#include "06_pipeline/generators/sharded.h"
#include "06_pipeline/runner/pipeline.h"
#include "06_pipeline/runner/predict.h"
#include "common/base/report.h"

namespace {

using namespace ninefold;
using namespace ninefold::pipeline;

struct ProgramOptions {
  ScheduleChoice choice;
  std::string model = "llama", layers_per_stage, times;
  int64_t pp = Options::automatic, dp_replicate = 1, dp_shard = 1;
  Reshard reshard = Reshard::standard;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Pipeline");
    options.add_choice("--model", model, {"llama", "mlp", "mnist_cnn"}, "what to train");
    options.add("--pp", pp, "ranks of the pipeline; auto: the ranks left over", {.minimum = 1, .may_be_auto = true});
    choice.declare(options);
    options.add("--layers-per-stage", layers_per_stage, "like 2,3,3; otherwise the FLOPs are balanced");
    options.add("--times", times, "write each stage's median times to this file, for 06/show --times");
    options.add("--dp-replicate", dp_replicate, "pipelines that each take a part of the batch", {.minimum = 1});
    options.add("--dp-shard", dp_shard, "the same, with every stage's parameters divided over them", {.minimum = 1});
    options.add_choice<Reshard>(
        "--reshard", reshard, {{"default", Reshard::standard}, {"always", Reshard::always}, {"never", Reshard::never}},
        "free a stage's divided parameters after each of its actions; default: never, as the next micro-batch needs "
        "them");
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_optimizer(options);
    train.declare_report(options);
  }

  void settle(const Options& given) {
    choice.validate(given);
    require(!given.given("--micro-batches") || train.micro_batches > 0,
            "--micro-batches ({}) must be at least 1: a pipeline computes nothing without one", train.micro_batches);
    require(!given.given("--reshard") || dp_shard > 1, "--reshard is for stages that are divided; add --dp-shard 2");
    if (!times.empty()) require_writable(times, "--times");
    train.use_defaults_of(model, given);
    train.settle_check(given);
  }
};

int64_t micro_batches_of(const Schedule& table) {
  int most = 0;
  for (const Row& row : table) {
    for (const auto& cell : row) most = std::max(most, cell ? cell->micro_batch + 1 : 0);
  }
  return most;
}

// The micro-batches that nobody asked for otherwise: as many as a table has, or up to 8 that divide the batch.
void settle_micro_batches(ProgramOptions& options, int64_t data_ranks) {
  TrainOptions& train = options.train;
  if (train.micro_batches == 0 && train.micro_batch == 0) {
    train.micro_batches = 8;
    while (train.local_batch(static_cast<int>(data_ranks)) % train.micro_batches != 0) --train.micro_batches;
    if (options.choice.is_from_file()) train.micro_batches = micro_batches_of(options.choice.table(0, 0));
  }
  train.resolve(static_cast<int>(data_ranks));
}

CheckedSchedule make_schedule(const ProgramOptions& options, int ranks) {
  const int micro_batches = static_cast<int>(options.train.micro_batches);
  const std::string& name = options.choice.name();
  const Schedule table = options.choice.table(ranks, micro_batches);
  require_size(table, ranks, micro_batches, name);
  CheckedSchedule schedule(table, name);
  const bool says_itself = has_sharded_stages(schedule);
  require(!says_itself || options.reshard == Reshard::standard,
          "{} says by UNSHARD and RESHARD when stages are gathered; leave --reshard out", name);
  if (options.dp_shard == 1 || says_itself) return schedule;
  return CheckedSchedule(with_sharded_stages(table, options.reshard == Reshard::always), name);
}

// Data parallelism within each stage: chapter 03's, where the schedule says so, or chapter 02's.
Parallelism split_data(Pipeline& pipeline, std::optional<Replicated>& replicated, Model& model, const Mesh& mesh,
                       const Group& data, const TrainOptions& train) {
  if (has_sharded_stages(pipeline.schedule())) {
    pipeline.shard({mesh["dp_shard"], mesh["dp_replicate"]},
                   {train.dtype, train.dtype, train.grad_dtype, Dtype::f32, train.dtype});
    return {};
  }
  replicated.emplace(model, data, DdpOptions{}, mesh.world().device(), train.grad_dtype);
  return replicated->parallelism();
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
                          {"dp_replicate", static_cast<int>(options.dp_replicate)},
                          {"dp_shard", static_cast<int>(options.dp_shard)}});
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  settle_micro_batches(options, data.size());
  const auto task = make_task(options.model, train);

  CheckedSchedule schedule = make_schedule(options, mesh.size("pp"));
  const auto children = on_paper(*task, train.micro_batch, train.precision());
  const auto stages = cut(layers_of(children), schedule.stages(), options.layers_per_stage);
  const auto model = task->make_model();
  Pipeline pipeline(*model, std::move(schedule), stages, children, mesh["pp"], *task);
  std::optional<Replicated> replicated;
  const Parallelism in_stages = split_data(pipeline, replicated, *model, mesh, data, train);
  materialize(*model, world.device(), train.precision(), train.seed);
  if (world.rank() == 0) {
    fmt::print("{}\n{}\n{}", title_of(pipeline.schedule(), options.choice.name()),
               description(stages, children, ranks_of_stages(pipeline.schedule())), pipeline.description(*task, train));
  }

  Trainer trainer("06/train", train, command_line, mesh, data, *task, *model,
                  pipeline.parallelism(in_stages, *task, train));
  const int exit_code = trainer.run();
  if (!options.times.empty()) write_times(pipeline, options.times);
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
