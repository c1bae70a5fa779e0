#include "03_zero_fsdp/unit.h"

#include "common/base/text.h"

namespace ninefold {
namespace {

Tensor new_tensor(const DeviceHandle& device, MemoryKind kind, int64_t size, Dtype dtype) {
  const MemoryScope scope(*device, kind);
  return Tensor::empty(device, {size}, dtype);
}

// Of the mesh: a group over several has their names joined.
std::vector<std::string> dimensions_of(const Group& group) {
  const std::vector<std::string_view> names = split(group.name(), '+');
  return {names.begin(), names.end()};
}

}  // namespace

Unit::Unit(UnitLayout layout, std::vector<Parameter*> parameters, const ShardGroups& groups,
           const ShardingPolicy& policy, Whole whole, const DeviceHandle& device)
    : layout_(std::move(layout)),
      parameters_(std::move(parameters)),
      groups_(groups),
      types_(policy.types),
      whole_(whole),
      device_(device) {
  const MemoryKind values_kind = policy.offloads_values() ? MemoryKind::host : MemoryKind::parameters;
  const MemoryKind gradients_kind = policy.offloads_gradients() ? MemoryKind::host : MemoryKind::gradients;
  if (whole.values) values_ = new_tensor(device, MemoryKind::parameters, layout_.padded, types_.compute);
  if (whole.gradients) gradients_ = new_tensor(device, MemoryKind::gradients, layout_.padded, types_.gradient);
  value_shard_ = whole.values ? own_part(values_) : new_tensor(device, values_kind, layout_.shard(), types_.stored);
  gradient_shard_ =
      whole.gradients ? own_part(gradients_) : new_tensor(device, gradients_kind, layout_.shard(), types_.gradient);
  for (size_t i = 0; i < parameters_.size(); ++i) place(i);
  if (whole.values) {
    use(&Parameter::value, values_);
    state_ = State::unsharded;  // `materialize` fills the whole of them
  }
  if (whole.gradients) use(&Parameter::gradient, gradients_);
}

Unit::~Unit() {
  for (Parameter* parameter : parameters_) parameter->on_gradient_complete = parameter->on_gradient_needed = nullptr;
}

// What this rank owns of a parameter, and how it learns of the parameter's gradient.
void Unit::place(size_t index) {
  Parameter& parameter = *parameters_[index];
  const auto [in_parameter, in_shard, length] = layout_.part(index, groups_.shard.rank());
  parameter.placement.flat = {in_parameter, length, dimensions_of(groups_.shard)};
  parameter.owned = {value_shard_.slice(in_shard, {length}), gradient_shard_.slice(in_shard, {length})};
  parameter.on_gradient_complete = [this] { count_complete(); };
  parameter.on_gradient_needed = [this] { provide_gradients(); };
}

void Unit::count_complete() {
  if (++complete_ < parameters_.size()) return;
  complete_ = 0;
  if (on_gradients_complete) on_gradients_complete();
}

Tensor Unit::own_part(const Tensor& whole) const {
  return whole.slice(groups_.shard.rank() * layout_.shard(), {layout_.shard()});
}

void Unit::use(Tensor Parameter::*tensor, const Tensor& whole) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = *parameters_[i];
    parameter.*tensor = whole.defined() ? whole.slice(layout_.offsets[i], parameter.layer_shape()) : Tensor();
  }
}

void Unit::unshard() {
  if (state_ != State::sharded) return;
  state_ = State::unsharding;
  types_.quantizes() ? start_quantized_gather() : start_gather();
}

void Unit::start_gather() {
  if (!whole_.values) values_ = new_tensor(device_, MemoryKind::gathered, layout_.padded, types_.compute);
  const Tensor own = own_part(values_);
  // A shard of the same type, on the device, is sent from where it is.
  const bool is_ready = value_shard_.dtype() == own.dtype() && value_shard_.kind() != MemoryKind::host;
  if (!is_ready) ops::copy_(own, value_shard_);
  gather_ = groups_.shard.start_all_gather(values_, is_ready ? value_shard_ : own);
}

void Unit::start_quantized_gather() {
  quantized_ = new_tensor(device_, MemoryKind::gathered, layout_.padded, types_.gather);
  const Tensor own = own_part(quantized_);
  ops::quantize_(own, value_shard_, scale_);
  gather_ = groups_.shard.start_all_gather(quantized_, own);
}

void Unit::set_scale(float scale) {
  expect(state_ == State::sharded, "the scale of {} changes while its values are gathered", layout_.name);
  scale_ = scale;
  for (Parameter* parameter : parameters_) parameter->f8_scale = scale;
}

void Unit::wait_unsharded() {
  if (state_ != State::unsharding) return;
  gather_.wait();
  if (quantized_.defined()) {
    values_ = new_tensor(device_, MemoryKind::gathered, layout_.padded, types_.compute);
    ops::dequantize_(values_, quantized_, scale_);
    quantized_ = Tensor();
  }
  state_ = State::unsharded;
  use(&Parameter::value, values_);
}

void Unit::reshard() {
  wait_unsharded();
  state_ = State::sharded;
  if (whole_.values) return;
  values_ = Tensor();
  use(&Parameter::value, values_);
}

void Unit::provide_gradients() {
  finish_reduce();
  if (gradients_.defined()) return;
  gradients_ = new_tensor(device_, MemoryKind::gathered, layout_.padded, types_.gradient);
  use(&Parameter::gradient, gradients_);
}

void Unit::start_reduce() {
  expect(!is_reducing_, "the gradients of {} are already being reduced", layout_.name);
  is_reducing_ = true;
  sent_ = gradients_;
  if (types_.reduce != types_.gradient) {
    sent_ = new_tensor(device_, MemoryKind::gathered, layout_.padded, types_.reduce);
    ops::copy_(sent_, gradients_);
  }
  const bool is_direct =
      types_.reduce == types_.gradient && !has_reduced_ && gradient_shard_.kind() != MemoryKind::host;
  reduced_ = is_direct ? gradient_shard_ : new_tensor(device_, MemoryKind::gathered, layout_.shard(), types_.reduce);
  reduce_ = groups_.shard.start_reduce_scatter(reduced_, sent_);
}

void Unit::finish_reduce() {
  if (!is_reducing_) return;
  reduce_.wait();
  is_reducing_ = false;
  if (!whole_.gradients) {
    gradients_ = Tensor();
    use(&Parameter::gradient, gradients_);
  }
  if (reduced_.raw() != gradient_shard_.raw()) {
    has_reduced_ ? ops::add_(gradient_shard_, reduced_) : ops::copy_(gradient_shard_, reduced_);
  }
  sent_ = reduced_ = Tensor();
  has_reduced_ = true;
}

void Unit::start_all_reduce() { all_reduce_ = groups_.replicate.start_all_reduce(gradient_shard_); }

void Unit::finish_step() {
  all_reduce_.wait();
  has_reduced_ = false;
}

}  // namespace ninefold
