#include "common/train/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/comm/control.h"
#include "common/optim/clip.h"
#include "common/train/batches.h"
#include "common/train/gather.h"
#include "common/train/routing.h"
#include "common/train/values.h"

namespace ninefold {
namespace {

// A tensor that training carries from step to step, and the parameter that says how it is placed.
struct StateTensor {
  const Parameter* parameter;
  Tensor tensor;
};

// In the same order for every model and optimizer of one kind.
std::vector<StateTensor> state_of(const std::vector<Parameter*>& parameters, const Optimizer& optimizer) {
  std::vector<StateTensor> state;
  for (const Parameter* parameter : parameters) state.push_back({parameter, parameter->owned.value});
  optimizer.visit([&](const std::string&, const Parameter& parameter, const Tensor& tensor) {
    state.push_back({&parameter, tensor});
  });
  return state;
}

// This rank's elements of a global tensor.
Values local_part(const Values& global, const Parameter& parameter) {
  Values local(static_cast<size_t>(elements(parameter.local_shape())));
  for (const Piece& piece : parameter.placement.pieces(parameter.shape)) {
    std::copy_n(global.begin() + piece.global_offset, piece.length, local.begin() + piece.local_offset);
  }
  return local;
}

void cast_values(const std::vector<Parameter*>& whole) {
  for (const Parameter* parameter : whole) {
    const bool is_owned = parameter->value.shares_storage_with(parameter->owned.value);
    if (!is_owned) ops::copy_(parameter->value, parameter->owned.value);
  }
}

constexpr double f32_bound = 1e-5;
constexpr double narrow_factor = 1.5;
// How much larger the rounding of a product is that `ranks` ranks have partial sums of.
double rounding_of_partial_sums(int ranks) { return std::sqrt(1 + (ranks * (ranks + 1) / 2.0 - 1) / ranks); }
// A loss is a mean of f32 losses added in f64; only the grouping of the sum may differ.
constexpr double loss_bound = 1e-6;
// Exact sums of the same squares, but for their grouping within blocks of 16.
constexpr double norm_bound = 1e-12;

}  // namespace

Oracle::Oracle(World& world, const Task& task, const TrainOptions& options, int data_ranks, const SumGrouping& grouping,
               Numerics numerics, Model& model, Optimizer& optimizer, FillValues fill_values)
    : world_(world),
      task_(task),
      options_(options),
      model_(model),
      optimizer_(optimizer),
      numerics_(numerics),
      gradient_factor_(narrow_factor * (options.precision().compute == Dtype::f32
                                            ? 1
                                            : rounding_of_partial_sums(grouping.partial_ranks))),
      fill_values_(fill_values ? fill_values : cast_values),
      parameters_(parameters_of(model)),
      scaler_(options.loss_scaler()) {
  for (const Parameter* parameter : parameters_) total_elements_ += parameter->size();
  if (world.rank() != 0) return;
  const auto make = [&](const Precision& precision) {
    return std::make_unique<SerialModel>(task, options, precision, data_ranks, grouping);
  };
  serial_ = make(options.precision());
  for (Parameter* parameter : serial_->parameters) {
    if (fill_values) parameter->value = Tensor::empty(serial_->device, parameter->shape, options.precision().compute);
  }
  if (is_bounded_by_rounding() || has_f8()) reference_ = make({});
}

int64_t Oracle::peak_bytes() const {
  int64_t bytes = 0;
  for (const auto& serial : {serial_.get(), reference_.get()}) {
    if (serial) bytes += serial->device->ledger().peak_total();
  }
  return bytes;
}

void Oracle::take_over() {
  const std::vector<StateTensor> parallel = state_of(parameters_, optimizer_);
  const auto serial = serial_ ? state_of(serial_->parameters, *serial_->optimizer) : std::vector<StateTensor>();
  for (size_t i = 0; i < parallel.size(); ++i) {
    const std::string bytes = gather_global(world_, *parallel[i].parameter, parallel[i].tensor);
    if (serial_) serial[i].tensor.copy_from_host(bytes.data());
  }
  if (serial_) serial_->optimizer->set_steps(optimizer_.steps());
  if (serial_) set_buffer_values(*serial_->model, buffer_values(model_));
  if (reference_) set_buffer_values(*reference_->model, buffer_values(model_));
  if (serial_) fill_values_(serial_->parameters);
  for (size_t i = 0; reference_ && i < parameters_.size(); ++i) {
    reference_->parameters[i]->value.copy_from_host(to_floats(serial_->parameters[i]->value).data());
  }
}

void Oracle::begin_step(const GlobalBatch& batch, const LossScaler& scaler) {
  const OutsideTheBooks outside(world_);
  take_over();
  scaler_ = scaler;
  batch_ = batch;
  world_.group().barrier();
}

void Oracle::compute_serial(const RoutingRecord& routing) {
  const bool routes = has_routers(model_);
  const RoutingRecord choices = routes ? gathered_choices(world_.group(), routing) : RoutingRecord();
  if (!serial_) return;
  serial_routing_ = {};
  batch_.routing = &serial_routing_;
  batch_.replay = routes ? &choices : nullptr;
  const auto targets = static_cast<double>(batch_.targets(task_));
  serial_loss_ = serial_->compute_gradients(batch_) / targets;
  unscale(serial_->parameters, scaler_);
  if (!reference_) return;
  const GlobalBatch again{.step = batch_.step, .indices = batch_.indices, .replay = batch_.replay};
  reference_loss_ = reference_->compute_gradients(again) / targets;
}

bool Oracle::compare_routing() {
  const auto differences = control::broadcast(world_.group(), serial_routing_.differences);
  if (serial_) fmt::print("{}", differences_text(batch_.step, differences));
  result_.routed_otherwise += static_cast<int64_t>(differences.size());
  bool fair = true;
  for (const auto& difference : differences) {
    result_.largest_gap = std::max(result_.largest_gap, difference.gap);
    fair = fair && difference.gap <= largest_fair_gap(options_.precision().compute);
  }
  return fair;
}

Oracle::Norms Oracle::serial_norms() const {
  double reference = 0, own = 0;
  const SerialModel* const f32 = reference_ ? reference_.get() : serial_.get();
  for (size_t i = 0; f32 && i < f32->gradients.size(); ++i) {
    const Values values = to_floats(f32->gradients[i]);
    reference += std::pow(norm_of(values), 2);
    if (reference_) own += std::pow(distance(to_floats(serial_->gradients[i]), values), 2);
  }
  return control::broadcast<Norms>(world_.group(), {{std::sqrt(reference), std::sqrt(own)}})[0];
}

bool Oracle::serial_overflows() const {
  const bool overflows = serial_ && scaler_.overflows(std::sqrt(gradient_squares(serial_->parameters).value()));
  return control::broadcast<char>(world_.group(), {overflows})[0] != 0;
}

void Oracle::compare_gradients(double loss, double norm, const RoutingRecord& routing) {
  const OutsideTheBooks outside(world_);
  compute_serial(routing);
  const Norms norms = serial_norms();
  const auto losses = control::broadcast<double>(world_.group(), {serial_loss_, reference_loss_});
  const double serial_loss = losses[0];
  Verdict verdict;
  const bool overflows = scaler_.overflows(norm);
  const bool agrees = overflows == serial_overflows();
  if (!agrees) verdict.add(std::numeric_limits<double>::infinity(), false, 0);
  // Numbers that overflowed have no distance.
  for (size_t i = 0; agrees && !overflows && i < parameters_.size(); ++i) compare_gradient(i, norms, verdict);
  const double loss_difference = std::abs(loss - serial_loss);
  result_.loss_max_abs = std::max(result_.loss_max_abs, loss_difference);
  const double own_rounding = norms.own_distance / std::max(norms.reference, 1e-30);  // 0 in f32
  if (has_f8()) {
    result_.f8_gradient_rel = std::max(result_.f8_gradient_rel, own_rounding);
    result_.f8_loss_abs = std::max(result_.f8_loss_abs, std::abs(serial_loss - losses[1]));
  }
  const double bound =
      bit_identical() ? 0 : (loss_bound + narrow_factor * own_rounding) * std::max(1.0, std::abs(serial_loss));
  const bool routed_alike = compare_routing();
  verdict.passed = verdict.passed && loss_difference <= bound && routed_alike;
  const double worst_before = result_.gradient_max_rel;
  result_.gradient_max_rel = std::max(worst_before, merge(verdict));
  if (result_.gradient_max_rel > worst_before) result_.worst_parameter = parameters_[verdict.worst_index]->name;
  ++result_.steps;
}

// Everyone receives the serial gradient of one parameter and compares the elements it holds.
void Oracle::compare_gradient(size_t index, const Norms& norms, Verdict& verdict) const {
  const Parameter& parameter = *parameters_[index];
  const auto serial_gradient = [&](const std::unique_ptr<SerialModel>& serial) {
    return local_part(control::broadcast(world_.group(), serial ? to_floats(serial->gradients[index]) : Values()),
                      parameter);
  };
  const Values serial = serial_gradient(serial_);
  const Values reference = is_bounded_by_rounding() ? serial_gradient(reference_) : serial;
  const double share = std::sqrt(static_cast<double>(reference.size()) / static_cast<double>(total_elements_));
  const double scale = std::max({norm_of(reference), norms.reference * share, 1e-30});
  const Values found = to_floats(parameter.owned.gradient);
  const double relative = distance(found, reference) / scale;
  const double own = std::max(distance(serial, reference), norms.own_distance * share);
  const double bound = f32_bound + gradient_factor_ * own / scale;  // own is 0 in f32
  verdict.add(relative, bit_identical() ? same_bits(found, serial) : relative <= bound, index);
}

void Oracle::compare_update(double lr, double norm, const LossScaler& scaler) {
  const OutsideTheBooks outside(world_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const std::string bytes = gather_global(world_, *parameters_[i], parameters_[i]->owned.gradient);
    if (serial_) serial_->parameters[i]->gradient.copy_from_host(bytes.data());
  }
  double serial_norm = 0;
  if (serial_) {
    serial_norm = std::sqrt(gradient_squares(serial_->parameters).value());
    if (!scaler_.overflows(serial_norm)) {
      serial_->optimizer->step(lr, clip_factor(norm, options_.clip));
      update_router_biases(*serial_->model, serial_routing_);
    }
  }
  serial_norm = control::broadcast<double>(world_.group(), {serial_norm})[0];
  scaler_.update(scaler_.overflows(serial_norm));

  const std::vector<StateTensor> parallel = state_of(parameters_, optimizer_);
  const auto serial = serial_ ? state_of(serial_->parameters, *serial_->optimizer) : std::vector<StateTensor>();
  Verdict verdict;
  const bool is_near = !bit_identical() && std::abs(norm - serial_norm) <= norm_bound * serial_norm;
  verdict.passed = (norm == serial_norm || is_near) && scaler.scale() == scaler_.scale();
  const bool alike = same_buffers();
  verdict.passed = verdict.passed && alike;
  for (size_t i = 0; i < parallel.size(); ++i) {
    const Values expected = local_part(
        control::broadcast(world_.group(), serial_ ? to_floats(serial[i].tensor) : Values()), *parallel[i].parameter);
    const Values found = to_floats(parallel[i].tensor);
    verdict.add(distance(found, expected) / std::max(norm_of(expected), 1e-30), same_bits(found, expected), i);
  }
  result_.parameter_max_rel = std::max(result_.parameter_max_rel, merge(verdict));
}

bool Oracle::same_buffers() {
  const Values expected = control::broadcast(world_.group(), serial_ ? buffer_values(*serial_->model) : Values());
  return same_bits(buffer_values(model_), expected);
}

void Oracle::Verdict::add(double relative, bool within, size_t index) {
  passed = passed && within;
  if (std::isnan(relative)) relative = std::numeric_limits<double>::infinity();
  if (relative <= worst) return;
  worst = relative;
  worst_index = index;
}

double Oracle::merge(Verdict& verdict) {
  const auto all = control::all_gather(world_.group(), verdict);
  for (const Verdict& other : all) {
    result_.passed = result_.passed && other.passed;
    if (other.worst > verdict.worst) verdict = other;
  }
  return verdict.worst;
}

}  // namespace ninefold
