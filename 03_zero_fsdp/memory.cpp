// Predicts where the bytes of a training run go when ZeRO's stages 0 to 3 divide it over many ranks, without having
// them: the states of a number of parameters, or all kinds of memory of a Llama built on paper. With --measure it also
// takes a step of each stage on the ranks there are, and compares.
//
// ./run 03/memory -- --parameters 7.5e9 --ranks 64
// ./run 03/memory -- --config configs/llama3_8b.ini --dtype bf16 --length 8192 --ranks 64
// ./run 03/memory -n 4 -- --ranks 4 --measure
#include <numeric>

#include "01_collectives/collectives.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "03_zero_fsdp/memory_drawing.h"
#include "03_zero_fsdp/predict.h"
#include "common/base/report.h"
#include "common/comm/control.h"
#include "common/optim/optimizer.h"
#include "common/train/batches.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  double parameters = 0;
  int64_t ranks = 64;
  double parameter_bytes = 2, gradient_bytes = 2, optimizer_bytes = 12;
  bool measure = false;
  std::string svg;
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Memory");
    options.add("--parameters", parameters, "so many parameters, instead of a Llama's; 0: a Llama", {.minimum = 0});
    options.add("--ranks", ranks, "over which the states are divided", {.minimum = 1, .maximum = 1e9});
    options.add("--parameter-bytes", parameter_bytes, "of one parameter, with --parameters", {.minimum = 0});
    options.add("--gradient-bytes", gradient_bytes, "of its gradient, with --parameters", {.minimum = 0});
    options.add("--optimizer-bytes", optimizer_bytes, "of its optimizer states and master value, with --parameters",
                {.minimum = 0});
    options.add("--measure", measure,
                "train a step of each stage on the ranks of this job, and compare what they held");
    options.add("--svg", svg, "also draw the bytes of each stage into this file");
    policy.declare(options);
    recomputation.declare(options);
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_optimizer(options);
  }
};

MemoryAccount account_of_numbers(const ProgramOptions& options) {
  MemoryAccount account;
  account.title =
      fmt::format("{} parameters over {} ranks: bytes of each rank", human_count(options.parameters), options.ranks);
  account.kinds = {"parameters", "gradients", "optimizer"};
  for (int64_t stage = 0; stage <= 3; ++stage) {
    const StateBytes bytes = zero_bytes(options.parameters, options.ranks, stage,
                                        {options.parameter_bytes, options.gradient_bytes, options.optimizer_bytes});
    account.bytes.push_back({bytes.parameters, bytes.gradients, bytes.optimizer});
  }
  return account;
}

// What the options say of one stage.
struct Stage {
  TrainOptions train;
  ShardingPolicy policy;
};

Stage settled(const ProgramOptions& options, int64_t stage) {
  Stage result{options.train, options.policy};
  auto& [train, policy] = result;
  policy.stage = stage;
  if (stage < 3) {  // whole parameters are kept, and gathered, as they are computed with
    train.dtype = policy.param_dtype.value_or(train.dtype);
    policy.param_dtype.reset();
    policy.gather_dtype.reset();
  }
  if (stage < 2) policy.reduce_each_micro_batch = false;
  if (stage == 0) policy.offload = Offload::none;
  policy.settle_types(train);
  return result;
}

// Bytes of the optimizer on that of `ranks` which has most: shards end within parameters, and padding has no states.
int64_t most_of_optimizer(const ShardingPlan& plan, int ranks, const OptimizerSettings& settings, Dtype stored) {
  const std::vector<UnitLayout> layouts = layouts_of(plan, ranks);
  int64_t most = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<Parameter*> parameters;
    for (size_t unit = 0; unit < layouts.size(); ++unit) {
      for (size_t i = 0; i < layouts[unit].sizes.size(); ++i) {
        const auto part = layouts[unit].part(i, rank);
        parameters.push_back(plan.units[unit].parameters[i]);
        parameters.back()->placement = {};
        parameters.back()->placement.flat = {part.in_parameter, part.length, {"dp_shard"}};
      }
    }
    most = std::max(most, optimizer_bytes(settings, parameters, stored));
  }
  return most;
}

// What the rank holds that holds most.
MemoryByKind memory_of(const ProgramOptions& options, int64_t stage, const Task& task, const ShardingPlan& plan) {
  const auto [train, policy] = settled(options, stage);
  const auto ranks = static_cast<int>(options.ranks);
  const std::vector<UnitLayout> layouts = layouts_of(plan, ranks);
  MemoryByKind bytes{};
  const auto of = [&](MemoryKind kind) -> int64_t& { return bytes[static_cast<size_t>(kind)]; };
  of(policy.offloads_optimizer() ? MemoryKind::host : MemoryKind::optimizer) =
      most_of_optimizer(plan, stage == 0 ? 1 : ranks, train.optimizer, policy.types.stored);
  if (stage >= 1) predict_memory(bytes, layouts, plan.walk, policy, train.micro_batches);
  for (const UnitLayout& unit : layouts) {
    for (size_t i = 0; i < unit.sizes.size() && stage == 0; ++i) {
      of(MemoryKind::parameters) += unit.sizes[i] * size_of(policy.types.stored);
      // In the buckets of chapter 02 each gradient starts at a multiple of 64 bytes.
      of(MemoryKind::gradients) += rounded(unit.sizes[i] * size_of(policy.types.gradient));
    }
  }
  of(MemoryKind::activations) = task.activation_bytes(train.micro_batch, train.precision(), train.recomputation);
  return bytes;
}

// Takes one step of a stage; returns the most that any rank held of each kind.
MemoryByKind measure(const ProgramOptions& options, int64_t stage) {
  auto [train, policy] = settled(options, stage);
  train.device = DeviceType::cpu;
  World world(train.world(), collectives::named(train.collectives));
  require(world.size() == options.ranks,
          "--measure trains on the ranks of the job: start {} of them, or say --ranks {}", options.ranks, world.size());
  const Mesh mesh(world, {{"dp_replicate", 1}, {"dp_shard", 0}});
  const Group& data = mesh["dp_shard"];
  train.batch = data.size() * train.micro_batches * train.micro_batch;
  const auto task = make_task("llama", train);
  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  checkpoint_activations(*model, "layers.*", train.recomputation);
  const Parallelism parallelism = divide(*model, mesh, policy, train);
  materialize(*model, world.device(), train.precision(), train.seed);
  const std::vector<Parameter*> parameters = parameters_of(*model);
  const auto optimizer = make_optimizer(train.optimizer, parameters, train.seed, parallelism.optimizer_memory);

  GlobalBatch batch{.step = 0, .indices = std::vector<int64_t>(static_cast<size_t>(train.batch))};
  std::iota(batch.indices.begin(), batch.indices.end(), 0);
  accumulate_gradients(*model, parameters, *task, world.device(),
                       micro_batches(batch, *task, train, data.rank(), data.size()),
                       parallelism.grouping.each_micro_batch);
  parallelism.reduce_gradients();
  optimizer->step(train.schedule.lr, /*gradient_scale=*/1);
  parallelism.after_update();
  world.wait_for_all();
  MemoryByKind held{};
  for (size_t kind = 0; kind < held.size(); ++kind) {
    held[kind] = control::max(world.group(), world.device()->ledger().peak(static_cast<MemoryKind>(kind)));
  }
  return held;
}

std::vector<MemoryKind> kinds_of(const ProgramOptions& options) {
  std::vector<MemoryKind> kinds = {MemoryKind::parameters, MemoryKind::gradients, MemoryKind::optimizer,
                                   MemoryKind::activations, MemoryKind::gathered};
  if (options.policy.offload != Offload::none) kinds.push_back(MemoryKind::host);
  return kinds;
}

// The same account with what was measured in place of what was predicted.
MemoryAccount measured(const MemoryAccount& predicted, const ProgramOptions& options) {
  MemoryAccount account{
      .title = "measured in one step, on the rank that held most", .kinds = predicted.kinds, .bytes = {}};
  for (int64_t stage = 0; stage <= 3; ++stage) {
    const MemoryByKind bytes = measure(options, stage);
    auto& row = account.bytes.emplace_back();
    for (const MemoryKind kind : kinds_of(options))
      row.push_back(static_cast<double>(bytes[static_cast<size_t>(kind)]));
  }
  return account;
}

MemoryAccount account_of_llama(const ProgramOptions& options) {
  const TrainOptions& train = options.train;
  const auto task = make_task("llama", train);
  const auto model = task->make_model();
  const ShardingPlan plan = plan_sharding(*model, options.policy.wrap);
  MemoryAccount account;
  account.title =
      fmt::format("Llama of {} parameters over {} ranks, {}, {} micro-batches of {} x {} tokens: bytes of each rank",
                  human_count(static_cast<double>(parameter_count(*model))), options.ranks,
                  to_string(train.precision()), train.micro_batches, train.micro_batch, train.length);
  const std::vector<MemoryKind> kinds = kinds_of(options);
  for (const MemoryKind kind : kinds) account.kinds.emplace_back(name_of(kind));
  for (int64_t stage = 0; stage <= 3; ++stage) {
    const MemoryByKind bytes = memory_of(options, stage, *task, plan);
    auto& row = account.bytes.emplace_back();
    for (const MemoryKind kind : kinds) row.push_back(static_cast<double>(bytes[static_cast<size_t>(kind)]));
  }
  return account;
}

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("03/memory", "Bytes of each rank under ZeRO's stages 0 to 3, predicted, and measured if asked.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.policy.settle_types(train);
  options.policy.validate();
  train.recomputation = options.recomputation.resolve();
  if (!options.svg.empty()) require_writable(options.svg, "--svg");
  require(!options.measure || options.parameters == 0, "--measure needs a model to train; leave --parameters out");
  train.device = DeviceType::meta;
  train.micro_batch = std::max<int64_t>(train.micro_batch, 1);
  train.micro_batches = std::max<int64_t>(train.micro_batches, 1);
  const MemoryAccount account = options.parameters > 0 ? account_of_numbers(options) : account_of_llama(options);
  if (on_first_rank()) {
    fmt::print("{}\n{}", account.title, account.table());
    if (!options.svg.empty()) write_file_atomically(options.svg, account.svg());
  }
  if (!options.measure) return 0;
  const MemoryAccount held = measured(account, options);
  const bool is_equal = held.bytes == account.bytes;
  if (on_first_rank()) {
    fmt::print("\n{}\n{}\n{}\n", held.title, held.table(),
               is_equal ? "equal to the byte" : "DIFFERENT from what was predicted");
  }
  return is_equal ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
