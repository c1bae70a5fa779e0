#include "07_context_parallel/measurement/measurement.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "07_context_parallel/predict.h"
#include "07_context_parallel/runs.h"
#include "common/base/median.h"
#include "common/base/random.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "common/comm/virtual_time.h"
#include "common/train/values.h"

namespace ninefold {
namespace {

Tensor random_rows(const DeviceHandle& device, int64_t rows, int64_t width, Dtype dtype, std::string_view name) {
  const Tensor x = Tensor::empty(device, {rows, width}, dtype);
  ops::fill_random_(x, {.kind = ops::Distribution::Kind::normal, .width = 1}, hash_key(1, name), 0);
  return x;
}

std::vector<int32_t> counting(int64_t count) {
  std::vector<int32_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

int64_t bytes_sent(World& world) {
  int64_t bytes = 0;
  for (const auto& [dimension, operations] : world.traffic().techniques()) {
    for (const auto& [operation, entry] : operations) bytes += entry.bytes;
  }
  return bytes;
}

Tensor empty_as(const Tensor& x) { return Tensor::empty(x.device(), x.shape(), x.dtype()); }

double median_of(const std::vector<AttentionTimes>& times, double AttentionTimes::*member) {
  std::vector<double> values;
  for (const AttentionTimes& one : times) values.push_back(one.*member);
  return median(std::move(values));
}

AttentionTimes median_of(const std::vector<AttentionTimes>& times) {
  return {median_of(times, &AttentionTimes::seconds), median_of(times, &AttentionTimes::exposed)};
}

}  // namespace

std::string to_string(const AttentionProblem& problem) {
  return fmt::format("{} x {} tokens, {} heads, {} kv-heads of width {}, {}", problem.batch, problem.length,
                     problem.heads, problem.kv_heads, problem.head_dim, name_of(problem.dtype));
}

double AttentionRun::speed_up_by_balance() const {
  const auto all = static_cast<double>(std::accumulate(predicted.begin(), predicted.end(), int64_t{0}));
  return all / static_cast<double>(*std::max_element(predicted.begin(), predicted.end()));
}

bool AttentionRun::is_within(const AttentionErrors& own) const {
  for (size_t i = 0; i < errors.size(); ++i) {
    if (!(errors[i] <= 1e-5 + 1.5 * std::max(own[i], 0.0))) return false;
  }
  return true;
}

AttentionMeasurement::AttentionMeasurement(const Group& group, const AttentionProblem& problem, int64_t repetitions)
    : group_(group), world_(group.world()), problem_(problem), repetitions_(repetitions) {
  const OutsideTheBooks outside(world_);
  const int64_t rows = problem.batch * problem.length;
  const auto random = [&](int64_t heads, std::string_view name) {
    return random_rows(world_.device(), rows, heads * problem.head_dim, problem.dtype, name);
  };
  whole_ = {random(problem.heads, "q"), random(problem.kv_heads, "k"), random(problem.kv_heads, "v"),
            random(problem.heads, "dout")};
}

double AttentionMeasurement::virtual_exposed() const {
  double seconds = 0;
  if (world_.virtual_time()) {
    for (const auto& [group, exposed] : world_.virtual_time()->exposed()) seconds += exposed;
  }
  return seconds;
}

double AttentionMeasurement::largest(double value) const {
  const std::vector<double> all = control::all_gather(group_, value);
  return *std::max_element(all.begin(), all.end());
}

AttentionMeasurement::Once AttentionMeasurement::compute(AttentionCore& core, const Tensors& inputs,
                                                         const std::vector<int32_t>& positions) {
  Step step;
  step.rows_per_sample = static_cast<int64_t>(positions.size());
  step.positions = Tensor::from(world_.device(), {step.rows_per_sample}, positions);
  Saved saved(step);
  Once once;
  world_.traffic().clear();
  const double flops = world_.executed_flops(), waited = world_.waited(), exposed = virtual_exposed();
  const double virtual_begin = world_.virtual_clock() ? world_.virtual_clock()->now() : 0;
  const Stopwatch stopwatch;
  const Tensor out = core.forward(inputs.q, inputs.k, inputs.v, saved);
  once.sent_forward = bytes_sent(world_);
  const ops::AttentionGradients gradients = core.backward(inputs.dout, saved);
  once.wall = {stopwatch.seconds(), world_.waited() - waited};
  if (world_.virtual_clock()) once.virtual_time.seconds = world_.virtual_clock()->now() - virtual_begin;
  once.virtual_time.exposed = virtual_exposed() - exposed;
  once.sent_backward = bytes_sent(world_) - once.sent_forward;
  once.flops = world_.executed_flops() - flops;
  once.results = {out, gradients.dq, gradients.dk, gradients.dv};
  return once;
}

AttentionMeasurement::Repeated AttentionMeasurement::repeat(AttentionCore& core, const Tensors& inputs,
                                                            const std::vector<int32_t>& positions) {
  std::vector<AttentionTimes> wall, virtual_time;
  Once last;
  for (int64_t i = 0; i < repetitions_; ++i) {
    last = {};
    group_.barrier();
    last = compute(core, inputs, positions);
    const OutsideTheBooks outside(world_);
    wall.push_back({largest(last.wall.seconds), largest(last.wall.exposed)});
    virtual_time.push_back({largest(last.virtual_time.seconds), largest(last.virtual_time.exposed)});
  }
  return {std::move(last), median_of(wall), median_of(virtual_time)};
}

// In f32, whatever the type of the inputs.
void AttentionMeasurement::compute_exact() {
  const OutsideTheBooks outside(world_);
  const auto widened = [](const Tensor& x) { return ops::cast(x, Dtype::f32); };
  PlainAttention core(problem_.head_dim);
  const Tensors wide = {widened(whole_.q), widened(whole_.k), widened(whole_.v), widened(whole_.dout)};
  exact_ = {empty_as(wide.q), empty_as(wide.q), empty_as(wide.k), empty_as(wide.k)};
  if (group_.rank() == 0) exact_ = compute(core, wide, counting(problem_.length)).results;
  for (const Tensor& tensor : exact_) group_.broadcast(tensor, 0);
}

AttentionRun AttentionMeasurement::alone() {
  AttentionRun run{.name = "one rank"};
  PlainAttention core(problem_.head_dim);
  const std::vector<int32_t> positions = counting(problem_.length);
  std::vector<AttentionTimes> wall, virtual_time;
  Once last;
  for (int64_t i = 0; i < repetitions_; ++i) {
    group_.barrier();
    if (group_.rank() == 0) last = compute(core, whole_, positions);
    wall.push_back(last.wall);
    virtual_time.push_back(last.virtual_time);
    const OutsideTheBooks outside(world_);
    group_.barrier();
  }
  compute_exact();
  // The others have nothing to add.
  for (Tensor& result : last.results) {
    if (!result.defined()) result = Tensor::empty(world_.device(), {0}, problem_.dtype);
  }
  const OutsideTheBooks outside(world_);
  run.errors = errors_of(last.results, group_.rank() == 0 ? positions : std::vector<int32_t>());
  run.wall = {control::broadcast<AttentionTimes>(group_, {median_of(wall)})[0]};
  run.virtual_time = {control::broadcast<AttentionTimes>(group_, {median_of(virtual_time)})[0]};
  const int64_t all =
      SequenceLayout(ContextLayout::contiguous, 1).multiply_adds(0, problem_.length, problem_.heads, problem_.head_dim);
  run.predicted = {problem_.batch * all};
  run.counted = {static_cast<int64_t>(control::broadcast<double>(group_, {last.flops})[0] / 2)};
  return run;
}

AttentionRun AttentionMeasurement::divided(const SequenceLayout& layout, Dtype merge) {
  AttentionRun run{.name = std::string(name_of(layout.layout))};
  if (layout.layout == ContextLayout::hybrid) run.name += fmt::format(" by {}", layout.ulysses);
  const std::vector<int32_t> positions = layout.positions(group_.rank(), problem_.length);
  const Tensors own = {rows_of(whole_.q, positions), rows_of(whole_.k, positions), rows_of(whole_.v, positions),
                       rows_of(whole_.dout, positions)};
  const ContextGroups groups = context_groups(group_, layout);
  run.has_ring = groups.ring.size() > 1 && layout.layout != ContextLayout::gathered;
  const auto core = [&](bool overlap) {
    const auto ring = std::make_shared<Ring>(groups.ring, layout, RingOptions{.overlap = overlap, .merge = merge});
    return context_core(std::make_unique<PlainAttention>(problem_.head_dim), groups, layout, ring);
  };
  if (run.has_ring) {
    const Repeated plain = repeat(*core(false), own, positions);
    run.wall_without_overlap = plain.wall.exposed;
    run.virtual_without_overlap = plain.virtual_time.exposed;
  }
  const Repeated repeated = repeat(*core(true), own, positions);
  run.wall = repeated.wall;
  run.virtual_time = repeated.virtual_time;
  run.sent_forward = repeated.last.sent_forward;
  run.sent_backward = repeated.last.sent_backward;
  run.is_sent_as_predicted = is_sent_as_predicted(groups, layout);
  const OutsideTheBooks outside(world_);
  for (int rank = 0; rank < group_.size(); ++rank) {
    run.predicted.push_back(problem_.batch *
                            layout.multiply_adds(rank, problem_.length, problem_.heads, problem_.head_dim));
  }
  for (const double flops : control::all_gather(group_, repeated.last.flops)) {
    run.counted.push_back(static_cast<int64_t>(flops / 2));
  }
  if (exact_[0].defined()) run.errors = errors_of(repeated.last.results, positions);
  return run;
}

// Of the last computation.
bool AttentionMeasurement::is_sent_as_predicted(const ContextGroups& groups, const SequenceLayout& layout) const {
  const AttentionWidths widths{problem_.heads * problem_.head_dim, problem_.kv_heads * problem_.head_dim};
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    predict_traffic(world_.traffic(), groups, layout, widths, problem_.batch * problem_.length / group_.size(),
                    problem_.dtype, pass, 1);
  }
  bool is_equal = true;
  for (const auto& [dimension, operations] : world_.traffic().techniques()) {
    for (const auto& [operation, entry] : operations) is_equal &= entry.is_as_predicted();
  }
  return control::all_true(group_, is_equal);
}

AttentionErrors AttentionMeasurement::errors_of(const std::array<Tensor, 4>& results,
                                                const std::vector<int32_t>& positions) const {
  AttentionErrors errors{};
  for (size_t i = 0; i < results.size(); ++i) {
    const double own = distance(to_floats(results[i]), to_floats(rows_of(exact_[i], positions)));
    errors[i] = std::sqrt(control::sum(group_, own * own)) / norm_of(to_floats(exact_[i]));
  }
  return errors;
}

Tensor AttentionMeasurement::rows_of(const Tensor& whole, const std::vector<int32_t>& positions) const {
  const OutsideTheBooks outside(world_);
  return rows_at(whole, positions, problem_.batch);
}

}  // namespace ninefold
