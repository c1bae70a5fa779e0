#include "common/nn/operand.h"

#include <algorithm>
#include <cmath>

namespace ninefold {

float f8_scale(float largest, Dtype dtype) {
  require(
      std::isfinite(largest),
      "an operand of a product in f8 is not finite, so it has no scale; a lower --lr or a longer --warmup may help");
  if (largest == 0) return 1;
  const double limit = dtype == Dtype::f8_e4m3 ? 448 : 57344;
  int exponent = 0;
  const double fraction = std::frexp(largest / limit, &exponent);                      // in [1/2, 1)
  return std::ldexp(1.0f, std::max(fraction == 0.5 ? exponent - 1 : exponent, -126));  // no subnormal scale
}

Operand round_to_f8(const Tensor& x, Dtype dtype, const ShareLargest& share) {
  const float own = ops::absolute_max(x), scale = f8_scale(share ? share(own) : own, dtype);
  return {ops::quantize(x, scale, dtype), scale};
}

void multiply_into(const Tensor& out, const Operand& a, const Operand& b, ops::MatmulOptions options) {
  if (!a.is_f8()) return ops::matmul_into(out, a.values, b.values, options);
  ops::matmul_f8_into(out, a.values, a.scale, b.values, b.scale, options);
}

Tensor multiply(const Operand& a, const Operand& b, Dtype dtype, ops::MatmulOptions options) {
  const int64_t rows = a.values.dim(options.transpose_a ? 1 : 0), columns = b.values.dim(options.transpose_b ? 0 : 1);
  Tensor out = Tensor::empty(a.values.device(), {rows, columns}, dtype);
  multiply_into(out, a, b, options);
  return out;
}

void push(Saved& saved, const Operand& operand) {
  if (operand.is_f8()) saved.push(Tensor::from(operand.values.device(), {1}, std::vector<float>{operand.scale}));
  saved.push(operand.values);
}

Operand pop_operand(Saved& saved) {
  Operand operand{saved.pop()};
  if (operand.is_f8()) operand.scale = saved.pop().to_vector<float>()[0];
  return operand;
}

}  // namespace ninefold
