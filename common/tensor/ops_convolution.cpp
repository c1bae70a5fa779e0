#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

// [n, out, height - kernel + 1, width - kernel + 1]
Shape convolved_shape(const Operation& op, const Tensor& x, const Tensor& weight) {
  op.is_float(x);
  op.has_rank(x, 4);
  op.has_dtype(weight, x.dtype());
  const int64_t kernel = weight.rank() == 4 ? weight.dim(3) : 0;
  op.has_shape(weight, {weight.rank() > 0 ? weight.dim(0) : 0, x.dim(1), kernel, kernel});
  expect(kernel > 0 && x.dim(2) >= kernel && x.dim(3) >= kernel, "convolution: the kernel ({}) must fit into {} x {}",
         kernel, x.dim(2), x.dim(3));
  return {x.dim(0), weight.dim(0), x.dim(2) - kernel + 1, x.dim(3) - kernel + 1};
}

double convolution_flops(const Tensor& y, const Tensor& weight) {
  return 2.0 * static_cast<double>(y.size()) * static_cast<double>(weight.size() / weight.dim(0));
}

}  // namespace

Tensor convolution(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Operation op("convolution", {&x, &weight, &bias});
  Tensor y = Tensor::empty(x.device(), convolved_shape(op, x, weight), x.dtype());
  op.has_dtype(bias, x.dtype());
  op.has_shape(bias, {weight.dim(0)});
  if (y.size() > 0) op.kernels().convolution(y, x, weight, bias);
  op.done(convolution_flops(y, weight), {&x, &weight, &bias, &y});
  return y;
}

Tensor convolution_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& dweight,
                            const Tensor& dbias, bool needs_dx) {
  const Operation op("convolution_backward", {&dy, &x, &weight, &dweight, &dbias});
  op.has_shape(dy, convolved_shape(op, x, weight));
  op.has_dtype(dy, x.dtype());
  op.can_hold_sum(dweight, x);
  op.has_shape(dweight, weight.shape());
  op.can_hold_sum(dbias, x);
  op.has_shape(dbias, {weight.dim(0)});
  const Tensor dx = needs_dx ? empty_like(x) : Tensor();
  if (dy.size() > 0) op.kernels().convolution_backward(dx, dy, x, weight, dweight, dbias);
  op.done((needs_dx ? 2 : 1) * convolution_flops(dy, weight),
          {&dy, &x, &weight, &dweight, &dweight, &dbias, &dbias, &dx});
  return dx;
}

MaxPool max_pool(const Tensor& x) {
  const Operation op("max_pool", {&x});
  op.is_float(x);
  op.has_rank(x, 4);
  const Shape pooled = {x.dim(0), x.dim(1), x.dim(2) / 2, x.dim(3) / 2};
  const MaxPool result{Tensor::empty(x.device(), pooled, x.dtype()), Tensor::empty(x.device(), pooled, Dtype::i32)};
  op.kernels().max_pool(result, x);
  op.done(static_cast<double>(x.size()), {&x, &result.y, &result.index});
  return result;
}

Tensor max_pool_backward(const Tensor& dy, const Tensor& index, const Shape& x_shape) {
  const Operation op("max_pool_backward", {&dy, &index});
  op.is_float(dy);
  expect(x_shape.size() == 4, "max_pool_backward: the input's shape {} must have 4 dimensions", to_string(x_shape));
  op.has_shape(dy, {x_shape[0], x_shape[1], x_shape[2] / 2, x_shape[3] / 2});
  op.has_dtype(index, Dtype::i32);
  op.has_shape(index, dy.shape());
  Tensor dx = Tensor::empty(dy.device(), x_shape, dy.dtype());
  op.kernels().max_pool_backward(dx, dy, index);
  op.done(0, {&dy, &index, &dx});
  return dx;
}

}  // namespace ninefold::ops
