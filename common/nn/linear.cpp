#include "common/nn/linear.h"

namespace ninefold {

Linear::Linear(int64_t in, int64_t out, ops::Distribution weight_initial, std::optional<ops::Distribution> bias_initial)
    : own_weight_(std::in_place, Shape{out, in}, weight_initial), weight(*own_weight_) {
  if (bias_initial) bias.emplace(Shape{out}, *bias_initial);
}

Linear::Linear(Parameter& table) : weight(table) { ++table.users; }

Operand Linear::input(const Tensor& x, const ShareLargest& share) const {
  return in_f8 ? round_to_f8(x, Dtype::f8_e4m3, share) : Operand{x};
}

Operand Linear::output_gradient(const Tensor& dy, const ShareLargest& share) const {
  return in_f8 ? round_to_f8(dy, Dtype::f8_e5m2, share) : Operand{dy};
}

// Whoever divides the weight, or has rounded it already, knows its scale.
Operand Linear::weights() const {
  if (!in_f8) return {weight.value};
  const MemoryScope workspace(*weight.value.device(), MemoryKind::workspace);
  const float scale =
      weight.f8_scale > 0 ? weight.f8_scale : f8_scale(ops::absolute_max(weight.owned.value), Dtype::f8_e4m3);
  return {ops::quantize(weight.value, scale, Dtype::f8_e4m3), scale};
}

Tensor Linear::apply(const Operand& x) const {
  Tensor y = multiply(x, weights(), weight.value.dtype(), {.transpose_b = true});
  if (bias) ops::add_bias_(y, bias->value);
  return y;
}

void Linear::add_weight_gradients(const Operand& dy, const Operand& x, Saved& saved) {
  saved.add_weight_gradients([this, dy, x] {
    weight.write_gradient([&](const Tensor& dweight, bool accumulate) {
      multiply_into(dweight, dy, x, {.transpose_a = true, .accumulate = accumulate});
    });
    if (bias) bias->add_gradient([&](const Tensor& dbias) { ops::add_row_sums(dbias, dy.values); });
  });
}

Tensor Linear::input_gradient(const Operand& dy) const { return multiply(dy, weights(), weight.value.dtype()); }

Tensor Linear::forward(const Tensor& data, Saved& saved) {
  const bool matches = data.dtype() == weight.value.dtype();
  const Operand x = input(matches ? data : ops::cast(data, weight.value.dtype()));
  push(saved, x);
  return saved.keep(SavedOperation::matmul, [&] { return apply(x); });
}

void Linear::forward_add(const Tensor& data, Saved& saved, const Tensor& sum) {
  const Operand x = input(data);
  push(saved, x);
  if (!saved.results_needed()) return;
  multiply_into(sum, x, weights(), {.transpose_b = true, .accumulate = true});
  if (bias) ops::add_bias_(sum, bias->value);
}

Tensor Linear::backward(const Tensor& dy, Saved& saved) {
  const Operand operand = output_gradient(dy);
  add_weight_gradients(operand, pop_operand(saved), saved);
  return input_gradient(operand);
}

void Linear::backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) {
  const Operand operand = output_gradient(dy);
  add_weight_gradients(operand, pop_operand(saved), saved);
  multiply_into(dx, operand, weights(), {.accumulate = true});
}

void Linear::visit(Visitor& visitor) {
  if (is_tied()) {
    visitor.tied("weight", weight);
  } else {
    visitor.parameter("weight", weight);
  }
  if (bias) visitor.parameter("bias", *bias);
}

}  // namespace ninefold
