#include "common/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "common/base/progress.h"
#include "common/base/report.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "common/data/sampler.h"
#include "common/optim/clip.h"
#include "common/tensor/kernels.h"
#include "common/train/checkpoint.h"
#include "common/train/gather.h"
#include "common/train/peak.h"
#include "common/train/routing.h"
#include "common/train/step_lines.h"

namespace ninefold {
namespace {

// Where GPUs have one queue only, nothing that FSDP starts ahead overlaps.
std::string warning_of_one_connection(DeviceType device, const Mesh& mesh) {
  const char* const connections = std::getenv("CUDA_DEVICE_MAX_CONNECTIONS");
  const bool is_one = connections != nullptr && connections == std::string("1");
  if (device != DeviceType::cuda || !is_one || !mesh.has("dp_shard") || mesh.size("dp_shard") == 1) return "";
  return fmt::format(
      "warning: CUDA_DEVICE_MAX_CONNECTIONS=1 leaves the all-gathers of dp_shard({}) behind the kernels that they "
      "should overlap with; unset it\n",
      mesh.size("dp_shard"));
}

std::vector<std::pair<std::string, double>> memory_series(const Ledger& ledger) {
  std::vector<std::pair<std::string, double>> series;
  for (int kind = 0; kind < memory_kinds; ++kind) {
    const auto bytes = ledger.now(static_cast<MemoryKind>(kind));
    series.emplace_back(name_of(static_cast<MemoryKind>(kind)), static_cast<double>(bytes));
  }
  return series;
}

}  // namespace

Trainer::Trainer(std::string program, const TrainOptions& options, const Options& command_line, const Mesh& mesh,
                 const Group& data, const Task& task, Model& model, Parallelism parallelism)
    : options_(options),
      command_line_(command_line),
      mesh_(mesh),
      world_(mesh.world()),
      data_(data),
      task_(task),
      model_(model),
      parallelism_(std::move(parallelism)),
      parameters_(parameters_of(model)),
      scaler_(options.loss_scaler()) {
  if (options.cuda_graph) graphs_.emplace(model, parameters_, task, world_.device());
  if (has_routers(model)) routing_ranks_ = mesh.flatten({"pp", "dp_replicate", "dp_shard", "cp", "ep"});
  optimizer_ = make_optimizer(options.optimizer, parameters_, options.seed, parallelism_.optimizer_memory);
  record_.numerics = parallelism_.numerics;
  if (options.check) {
    oracle_ = std::make_unique<Oracle>(world_, task, options, data.size(), parallelism_.grouping, parallelism_.numerics,
                                       model, *optimizer_, parallelism_.round_as_gathered);
  }
  if (!options.checkpoint.folder.empty() || !options.checkpoint.init_from.empty()) {
    checkpoints_ = std::make_unique<Checkpoints>(options, command_line, task, mesh, model_, *optimizer_, scaler_);
  }
  if (!options.trace.empty()) start_trace();
  record_.program = std::move(program);
  record_.unit = task.unit();
  record_.ranks = world_.size();
  record_.has_virtual_time = world_.virtual_time() != nullptr;
  record_.flops_per_row = task.flops_per_sample() / static_cast<double>(task.rows_per_sample());
  record_.memory = predict_memory(parameters_, options, task, options.evaluates() ? evaluated_at_once() : 0,
                                  parallelism_.predict_memory);
}

Trainer::~Trainer() { world_.device()->trace = nullptr; }

void Trainer::start_trace() {
  const OutsideTheBooks outside(world_);
  world_.group().barrier();
  trace_.emplace(world_.rank()).set_origin(Trace::now());
  if (const VirtualClock* clock = world_.virtual_clock()) trace_->virtual_now = [clock] { return clock->now(); };
  trace_->after_span = [this] { trace_->add_counter("memory", memory_series(world_.device()->ledger())); };
  world_.device()->trace = &*trace_;
}

int Trainer::run() {
  announce();
  if (options_.steps == 0) return finish();
  const RunPosition position = begin();
  if (position.step >= options_.steps) return finish();
  peak_before_ = measure_peak();
  world_.traffic().clear();
  const double flops_before = world_.executed_flops();
  StepClock clock(world_);
  parallelism_.before_training();
  train(position, clock);
  record_.exposed = clock.exposed();
  record_.bubble = parallelism_.bubble();
  // A technique may leave the last update on its way: its bytes are booked as they travel.
  world_.wait_for_all();
  const auto steps = static_cast<int64_t>(record_.steps.size());
  parallelism_.predict_traffic(world_.traffic(), steps);
  const double executed = control::sum(world_.group(), world_.executed_flops() - flops_before);
  record_.executed_flops_per_step = executed / static_cast<double>(steps);
  record_.predicted_flops_per_step = parallelism_.predict_flops(
      task_.executed_flops_per_sample(options_.recomputation) * static_cast<double>(options_.batch));
  return finish();
}

RunPosition Trainer::begin() {
  if (!checkpoints_) return {};
  const RunPosition position = checkpoints_->load();
  const OutsideTheBooks outside(world_);
  parallelism_.after_load();
  world_.wait_for_all();
  if (position.step < options_.steps) {
    record_.memory.at(static_cast<size_t>(MemoryKind::host)).predicted += checkpoints_->predict_snapshot_bytes();
    return position;
  }
  world_.traffic().clear();
  predict_no_step(record_.memory);
  if (world_.rank() == 0) fmt::print("all {} steps are made: --steps says how many in all\n", position.step);
  return position;
}

void Trainer::train(RunPosition position, StepClock& clock) {
  DistributedSampler sampler({.samples = task_.samples(Split::train), .batch = options_.batch, .seed = options_.seed},
                             /*ranks=*/1, /*rank=*/0);
  Progress progress("training", options_.steps, world_.rank() == 0 && options_.log_every > 1);
  const int64_t first = position.step;
  for (bool ends = false; position.step < options_.steps && !ends;) {
    const int64_t step = position.step++;
    world_.set_step(step);
    const DataPosition data = sampler.position_of(position.data_step++);
    StepResult result =
        train_step({step, sampler.global_batch(data)}, data.epoch, oracle_ && options_.checks(step, first));
    const OutsideTheBooks outside(world_);
    result.virtual_milliseconds = clock.end_step();
    progress.update(step + 1);
    const bool logged = step % options_.log_every == 0 || step + 1 == options_.steps;
    if (logged) progress.clear();
    log_step(step, logged, result);
    if (options_.eval_every > 0 && (step + 1) % options_.eval_every == 0) evaluate(step + 1);
    ends = checkpoints_ && checkpoints_->after_step(position);
  }
}

void Trainer::announce() const {
  if (world_.rank() != 0) return;
  fmt::print("{}: {} parameters, mesh {}, {}; {}\n", record_.program,
             human_count(static_cast<double>(parameter_count(model_))), to_string(mesh_),
             to_string(options_.precision()), world_.device()->kernels().description());
  if (options_.verbose) {
    Table table({"parameter", "shape", "here", "bytes here"});
    for (const Parameter* parameter : parameters_) {
      table.add_row({parameter->name, to_string(parameter->shape), to_string(parameter->local_shape()),
                     human_bytes(static_cast<double>(parameter->owned.value.bytes()))});
    }
    fmt::print("{}", table.text());
  }
  fmt::print("{}", warning_of_one_connection(options_.device, mesh_));
  if (options_.steps == 0) return;
  const int64_t rows = task_.rows_per_sample();
  fmt::print("batch {} = {} data ranks x {} micro-batches x {} {}{}; {}\n", options_.batch, data_.size(),
             options_.micro_batches, options_.micro_batch, rows == 1 ? "" : fmt::format("samples of {} ", rows),
             task_.unit(),
             oracle_ ? "checked against the serial model in the first three steps and the last" : "not checked");
  if (record_.has_virtual_time)
    fmt::print("virtual time: that of the machines of --cluster \"{}\"\n", options_.cluster);
}

Trainer::StepResult Trainer::train_step(GlobalBatch batch, int64_t epoch, bool checked) {
  batch.loss_scale = scaler_.scale();
  if (checked) oracle_->begin_step(batch, scaler_);
  RoutingRecord routing;  // of this rank's tokens
  routing.keeps_choices = checked;
  batch.routing = &routing;

  Stopwatch stopwatch;
  const double loss = compute_gradients(batch);
  const double norm = std::sqrt(global_squares().value());
  std::optional<RoutingRecord> global_routing;
  if (routing_ranks_) global_routing = summed(*routing_ranks_, routing);
  predict_activations(routing);
  double seconds = stopwatch.seconds();
  if (checked) oracle_->compare_gradients(loss, norm, routing);

  stopwatch.restart();
  const double lr = options_.lr_at(batch.step, epoch);
  update(batch.step, lr, norm, global_routing);
  seconds += stopwatch.seconds();
  if (checked) oracle_->compare_update(lr, norm, scaler_);
  return {.loss = loss,
          .gradient_norm = norm,
          .seconds = seconds,
          .loss_scale = batch.loss_scale,
          .skipped = scaler_.overflows(norm),
          .routing = std::move(global_routing)};
}

double Trainer::compute_gradients(const GlobalBatch& batch) {
  const Span span(world_.device()->trace, "step", "step {}: gradients", batch.step);
  auto parts = micro_batches(batch, task_, options_, data_.rank(), data_.size());
  for (MicroBatch& part : parts) {
    if (parallelism_.sample_part) part.positions = parallelism_.sample_part->positions;
  }
  const double local_loss =
      parallelism_.compute_gradients
          ? parallelism_.compute_gradients(parts)
          : accumulate_gradients(model_, parameters_, task_, world_.device(), parts,
                                 parallelism_.grouping.each_micro_batch, graphs_ ? &*graphs_ : nullptr);
  require(std::isfinite(local_loss),
          "the loss of step {} on rank {} is not finite; a lower --lr or a longer --warmup may help", batch.step,
          world_.rank());
  parallelism_.reduce_gradients();
  unscale(parameters_, scaler_);
  return sum_over_data(local_loss) / static_cast<double>(batch.targets(task_));
}

double Trainer::sum_over_data(double value) const {
  const auto& part = parallelism_.sample_part;
  return control::sum(data_, part ? control::sum(part->group, value) : value);
}

// Each element of the model counts once, on the rank at coordinate 0 of all dimensions that hold copies of it.
ops::ExactSum Trainer::global_squares() const {
  const bool is_divided = std::any_of(parameters_.begin(), parameters_.end(),
                                      [](const Parameter* parameter) { return parameter->placement.is_divided(); });
  if (!is_divided) return gradient_squares(parameters_);
  std::vector<Parameter*> counted;
  for (Parameter* parameter : parameters_) {
    if (holds_first_copy(parameter->placement, mesh_)) counted.push_back(parameter);
  }
  ops::ExactSum total;
  for (const auto& part : control::all_gather(world_.group(), gradient_squares(counted))) total += part;
  return total;
}

void Trainer::update(int64_t step, double lr, double norm, const std::optional<RoutingRecord>& routing) {
  const Span span(world_.device()->trace, "step", "step {}: update", step);
  if (!scaler_.overflows(norm)) {
    optimizer_->step(lr, clip_factor(norm, options_.clip));
    if (routing) update_router_biases(model_, *routing);
  }
  scaler_.update(scaler_.overflows(norm));
  parallelism_.after_update();
}

void Trainer::log_step(int64_t step, bool print, const StepResult& result) {
  record_.steps.push_back(
      {.step = step,
       .loss = result.loss,
       .gradient_norm = result.gradient_norm,
       .loss_scale = result.loss_scale,
       .skipped = result.skipped,
       .milliseconds = result.seconds * 1e3,
       .virtual_milliseconds = result.virtual_milliseconds,
       .rows_per_second = static_cast<double>(options_.batch * task_.rows_per_sample()) / result.seconds,
       .routing = result.routing});
  if (world_.rank() != 0 || !print) return;
  if (record_.steps.size() == 1) fmt::print("{}", step_heading(record_, scaler_.enabled()));
  fmt::print("{}", step_line(record_, scaler_.enabled(), peak_before_));
  std::fflush(stdout);
}

void Trainer::predict_activations(const RoutingRecord& routing) {
  const bool is_known = !parallelism_.predict_activations && !options_.llama.moe.capacity_factor;
  if (!routing_ranks_ || is_known) return;
  const int64_t bytes = parallelism_.predict_activations ? parallelism_.predict_activations(routing)
                                                         : activation_bytes(task_, options_, routing);
  for (MemoryRecord& entry : record_.memory) {
    if (entry.kind != MemoryKind::activations) continue;
    entry.predicted = std::max(record_.steps.empty() ? 0 : entry.predicted, bytes);
  }
}

double Trainer::measure_peak() const {
  if (!options_.measure_peak) return 0;
  const OutsideTheBooks outside(world_);
  world_.group().barrier();
  const DeviceHandle device = make_device(options_.device, options_.threads);
  const double peak =
      measure_matmul_peak(device, options_.precision().compute, task_.matmul_shapes(options_.micro_batch));
  return control::sum(world_.group(), peak);
}

int Trainer::finish() {
  record_.traffic = world_.traffic().techniques();
  measure_memory(record_.memory, *world_.device());
  if (parallelism_.gather_error && options_.steps > 0) record_.gather_error = parallelism_.gather_error();
  record_.reserved_bytes = control::max(world_.group(), world_.device()->reserved());
  record_.matmul_peak = record_.steps.empty() ? 0 : (peak_before_ + measure_peak()) / 2;
  if (oracle_) {
    record_.check = oracle_->result();
    record_.oracle_bytes = control::max(world_.group(), oracle_->peak_bytes());
  }
  record_.books_balanced = control::all_true(world_.group(), record_.books_agree());
  take_largest(record_.memory, world_.group());
  if (world_.rank() == 0) {
    fmt::print("\n{}", summary_text(record_, options_));
    if (!options_.report.empty()) write_report(options_.report, record_, options_, command_line_, mesh_);
  }
  if (trace_) write_trace_file();
  return record_.check.passed && record_.books_balanced ? 0 : 1;
}

void Trainer::write_trace_file() const {
  const auto all = control::gather_bytes(world_.group(), trace_->serialise());
  if (world_.rank() == 0) write_trace(options_.trace, all);
}

}  // namespace ninefold
