#include "common/nn/norm.h"

namespace ninefold {

RmsNorm::RmsNorm(int64_t features, float eps) : weight({features}, {.mean = 1}), eps_(eps) {}

Tensor RmsNorm::forward(const Tensor& x, Saved& saved) { return forward_sum(x, Tensor(), saved).y; }

RmsNorm::Output RmsNorm::forward_sum(const Tensor& x, const Tensor& residual, Saved& saved) {
  const ops::RmsNorm result = ops::rms_norm(x, residual, weight.value, eps_);
  saved.push(x);
  saved.push(residual);
  saved.push(result.inverse_deviation);
  return {result.sum, result.y};
}

Tensor RmsNorm::backward(const Tensor& dy, Saved& saved) { return backward_sum(dy, Tensor(), saved); }

Tensor RmsNorm::backward_sum(const Tensor& dy, const Tensor& dsum, Saved& saved) {
  const Tensor inverse_deviation = saved.pop(), residual = saved.pop(), x = saved.pop();
  Tensor dx;
  weight.add_gradient([&](const Tensor& dweight) {
    dx = ops::rms_norm_backward(dy, x, residual, weight.value, inverse_deviation, dsum, dweight);
  });
  return dx;
}

void RmsNorm::visit(Visitor& visitor) { visitor.parameter("weight", weight); }

}  // namespace ninefold
