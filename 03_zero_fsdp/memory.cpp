// Predicts where the bytes of a training run go when ZeRO's stages 0 to 3 divide it over many ranks, without having
// them: the states of a number of parameters, or all kinds of memory of a Llama built on paper.
//
// ./run 03/memory -- --parameters 7.5e9 --ranks 64
// ./run 03/memory -- --config configs/llama3_8b.ini --dtype bf16 --length 8192 --ranks 64
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
  ShardingPolicy policy;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Memory");
    options.add("--parameters", parameters, "so many parameters, instead of a Llama's; 0: a Llama", {.minimum = 0});
    options.add("--ranks", ranks, "over which the states are divided", {.minimum = 1});
    options.add("--parameter-bytes", parameter_bytes, "of one parameter, with --parameters", {.minimum = 0});
    options.add("--gradient-bytes", gradient_bytes, "of its gradient, with --parameters", {.minimum = 0});
    options.add("--optimizer-bytes", optimizer_bytes, "of its optimizer states and master value, with --parameters",
                {.minimum = 0});
    policy.declare(options);
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_optimizer(options);
  }
};

std::string bytes_text(double bytes) { return bytes > 0 ? human_bytes(bytes) : "-"; }

std::string table_of_numbers(const ProgramOptions& options) {
  Table table({"stage", "parameters", "gradients", "optimizer", "together"});
  for (int64_t stage = 0; stage <= 3; ++stage) {
    const StateBytes bytes = zero_bytes(options.parameters, options.ranks, stage,
                                        {options.parameter_bytes, options.gradient_bytes, options.optimizer_bytes});
    table.add_row({fmt::format("{}", stage), bytes_text(bytes.parameters), bytes_text(bytes.gradients),
                   bytes_text(bytes.optimizer), bytes_text(bytes.total())});
  }
  return table.text();
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
  bytes[static_cast<size_t>(MemoryKind::optimizer)] =
      optimizer_bytes(train.optimizer, parameters, policy.types.stored);
  predict_memory(bytes, layouts, plan.walk, policy, train.micro_batches);
  bytes[static_cast<size_t>(MemoryKind::activations)] =
      task.activation_bytes(train.micro_batch, train.precision(), train.recomputation);
  return bytes;
}

std::string table_of_llama(const ProgramOptions& options, const Task& task, const ShardingPlan& plan) {
  std::vector<MemoryKind> kinds = {MemoryKind::parameters, MemoryKind::gradients, MemoryKind::optimizer,
                                   MemoryKind::activations, MemoryKind::gathered};
  if (options.policy.offload != Offload::none) kinds.push_back(MemoryKind::host);
  std::vector<std::string> heads = {"stage"};
  for (const MemoryKind kind : kinds) heads.emplace_back(name_of(kind));
  heads.emplace_back("together");
  Table table(heads);
  for (int64_t stage = 0; stage <= 3; ++stage) {
    const MemoryByKind bytes = memory_of(options, stage, task, plan);
    std::vector<std::string> row = {fmt::format("{}", stage)};
    int64_t sum = 0;
    for (const MemoryKind kind : kinds) {
      const int64_t one = bytes[static_cast<size_t>(kind)];
      row.push_back(bytes_text(static_cast<double>(one)));
      sum += one;
    }
    row.push_back(bytes_text(static_cast<double>(sum)));
    table.add_row(row);
  }
  return table.text();
}

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("03/memory", "Bytes of each rank under ZeRO's stages 0 to 3, predicted.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  if (options.parameters > 0) {
    fmt::print("{} parameters over {} ranks: bytes of each rank\n{}", human_count(options.parameters), options.ranks,
               table_of_numbers(options));
    return 0;
  }
  options.policy.settle_types(train);
  train.device = DeviceType::meta;
  train.micro_batch = train.micro_batch > 0 ? train.micro_batch : 1;
  train.micro_batches = std::max<int64_t>(train.micro_batches, 1);
  const auto task = make_task("llama", train);
  const auto model = task->make_model();
  const ShardingPlan plan = plan_sharding(*model, options.policy.wrap);
  fmt::print("Llama of {} parameters over {} ranks, {}, {} micro-batches of {} x {} tokens: bytes of each rank\n{}",
             human_count(static_cast<double>(parameter_count(*model))), options.ranks, to_string(train.precision()),
             train.micro_batches, train.micro_batch, train.length, table_of_llama(options, *task, plan));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
