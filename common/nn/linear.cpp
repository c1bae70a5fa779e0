#include "common/nn/linear.h"

namespace ninefold {

Linear::Linear(int64_t in, int64_t out, ops::Distribution weight_initial, std::optional<ops::Distribution> bias_initial)
    : weight({out, in}, weight_initial) {
  if (bias_initial) bias.emplace(Shape{out}, *bias_initial);
}

Tensor Linear::apply(const Tensor& x) const {
  Tensor y = ops::matmul(x, weight.value, {.transpose_b = true});
  if (bias) ops::add_bias_(y, bias->value);
  return y;
}

void Linear::add_weight_gradients(const Tensor& dy, const Tensor& x, Saved& saved) {
  saved.add_weight_gradients([this, dy, x] {
    weight.write_gradient([&](const Tensor& dweight, bool accumulate) {
      ops::matmul_into(dweight, dy, x, {.transpose_a = true, .accumulate = accumulate});
    });
    if (bias) bias->add_gradient([&](const Tensor& dbias) { ops::add_row_sums(dbias, dy); });
  });
}

Tensor Linear::forward(const Tensor& data, Saved& saved) {
  const bool matches = data.dtype() == weight.value.dtype();
  const Tensor x = matches ? data : ops::cast(data, weight.value.dtype());
  saved.push(x);
  return saved.keep(SavedOperation::matmul, [&] { return apply(x); });
}

void Linear::forward_add(const Tensor& x, Saved& saved, const Tensor& sum) {
  saved.push(x);
  if (!saved.results_needed()) return;
  ops::matmul_into(sum, x, weight.value, {.transpose_b = true, .accumulate = true});
  if (bias) ops::add_bias_(sum, bias->value);
}

Tensor Linear::backward(const Tensor& dy, Saved& saved) {
  add_weight_gradients(dy, saved.pop(), saved);
  return ops::matmul(dy, weight.value);
}

void Linear::backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) {
  add_weight_gradients(dy, saved.pop(), saved);
  ops::matmul_into(dx, dy, weight.value, {.accumulate = true});
}

void Linear::visit(Visitor& visitor) {
  visitor.parameter("weight", weight);
  if (bias) visitor.parameter("bias", *bias);
}

}  // namespace ninefold
