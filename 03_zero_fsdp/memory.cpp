// Predicts where the bytes of a training run go when ZeRO's stages 0 to 3 divide it over many ranks, without having
// them: the states of a number of parameters, or all kinds of memory of a Llama built on paper.
//
// ./run 03/memory -- --parameters 7.5e9 --ranks 64
// ./run 03/memory -- --config configs/llama3_8b.ini --dtype bf16 --length 8192 --ranks 64
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/memory_drawing.h"
#include "03_zero_fsdp/predict.h"
#include "common/base/report.h"
#include "common/optim/optimizer.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  double parameters = 0;
  int64_t ranks = 64;
  double parameter_bytes = 2, gradient_bytes = 2, optimizer_bytes = 12;
  std::string svg;
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Memory");
    options.add("--parameters", parameters, "so many parameters, instead of a Llama's; 0: a Llama", {.minimum = 0});
    options.add("--ranks", ranks, "over which the states are divided", {.minimum = 1});
    options.add("--parameter-bytes", parameter_bytes, "of one parameter, with --parameters", {.minimum = 0});
    options.add("--gradient-bytes", gradient_bytes, "of its gradient, with --parameters", {.minimum = 0});
    options.add("--optimizer-bytes", optimizer_bytes, "of its optimizer states and master value, with --parameters",
                {.minimum = 0});
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

// What rank 0 of the ranks holds at most.
MemoryByKind memory_of(const ProgramOptions& options, int64_t stage, const Task& task, const ShardingPlan& plan) {
  TrainOptions train = options.train;
  ShardingPolicy policy = options.policy;
  // Stages that keep whole parameters keep them as they compute with them.
  if (stage < 3) train.dtype = policy.param_dtype.value_or(train.dtype);
  policy.settle_types(train);
  policy.stage = std::max<int64_t>(stage, 1);  // stage 0: whole parameters and gradients, as in stage 1
  if (stage == 0) policy.offload = Offload::none;
  const std::vector<UnitLayout> layouts = layouts_of(plan, static_cast<int>(options.ranks));
  std::vector<Parameter*> parameters;
  for (size_t unit = 0; unit < layouts.size(); ++unit) {
    for (size_t i = 0; i < layouts[unit].sizes.size(); ++i) {
      const auto part = layouts[unit].part(i, 0);
      parameters.push_back(plan.units[unit].parameters[i]);
      parameters.back()->placement = {};
      if (stage >= 1) parameters.back()->placement.flat = {part.in_parameter, part.length, {"dp_shard"}};
    }
  }
  MemoryByKind bytes{};
  bytes[static_cast<size_t>(MemoryKind::optimizer)] = optimizer_bytes(train.optimizer, parameters, policy.types.stored);
  predict_memory(bytes, layouts, plan.walk, policy, train.micro_batches);
  bytes[static_cast<size_t>(MemoryKind::activations)] =
      task.activation_bytes(train.micro_batch, train.precision(), train.recomputation);
  return bytes;
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
  std::vector<MemoryKind> kinds = {MemoryKind::parameters, MemoryKind::gradients, MemoryKind::optimizer,
                                   MemoryKind::activations, MemoryKind::gathered};
  if (options.policy.offload != Offload::none) kinds.push_back(MemoryKind::host);
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
  Options command_line("03/memory", "Bytes of each rank under ZeRO's stages 0 to 3, predicted.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.policy.settle_types(train);
  options.policy.validate();
  train.recomputation = options.recomputation.resolve();
  if (!options.svg.empty()) require_writable(options.svg, "--svg");
  train.device = DeviceType::meta;
  train.micro_batch = std::max<int64_t>(train.micro_batch, 1);
  train.micro_batches = std::max<int64_t>(train.micro_batches, 1);
  const MemoryAccount account = options.parameters > 0 ? account_of_numbers(options) : account_of_llama(options);
  if (on_first_rank()) {
    fmt::print("{}\n{}", account.title, account.table());
    if (!options.svg.empty()) write_file_atomically(options.svg, account.svg());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
