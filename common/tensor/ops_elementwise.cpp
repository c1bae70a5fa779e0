// Operations on one element at a time. The flops are nominal: memory decides their speed.
#include <cmath>

#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

void check_scaled(const Operation& op, const Tensor& q, const Tensor& x, float scale) {
  op.is_f8(q);
  op.is_float(x);
  op.same_size(q, x);
  expect(scale > 0 && std::isfinite(scale), "a scale ({}) must be positive and finite", scale);
}

}  // namespace

void fill_(const Tensor& x, float value) {
  const Operation op("fill", {&x});
  op.is_float(x);
  op.kernels().fill(x, value);
  op.done(0, {&x});
}

void copy_(const Tensor& destination, const Tensor& source) {
  const Operation op("copy", {&destination, &source});
  op.same_size(destination, source);
  if (destination.dtype() != source.dtype()) {
    op.is_float(destination);
    op.is_float(source);
  }
  op.kernels().copy(destination, source);
  op.done(0, {&destination, &source});
}

void copy_columns_(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                   int64_t columns) {
  const Operation op("copy_columns", {&destination, &source});
  op.has_rank(destination, 2);
  op.has_rank(source, 2);
  op.has_dtype(destination, source.dtype());
  expect(destination.dim(0) == source.dim(0), "copy_columns: {} rows are not {} rows", source.dim(0),
         destination.dim(0));
  expect(columns >= 0 && from_column >= 0 && from_column + columns <= source.dim(1) && to_column >= 0 &&
             to_column + columns <= destination.dim(1),
         "copy_columns: {} columns do not fit from {} of {} to {} of {}", columns, from_column, source.dim(1),
         to_column, destination.dim(1));
  op.kernels().copy_columns(destination, to_column, source, from_column, columns);
  const Tensor& narrower = source.dim(1) < destination.dim(1) ? source : destination;
  op.done(0, {&narrower, &narrower});
}

Tensor cast(const Tensor& x, Dtype dtype) {
  Tensor y = Tensor::empty(x.device(), x.shape(), dtype);
  copy_(y, x);
  return y;
}

void quantize_(const Tensor& q, const Tensor& x, float scale) {
  const Operation op("quantize", {&q, &x});
  check_scaled(op, q, x, scale);
  op.kernels().quantize(q, x, scale);
  op.done(static_cast<double>(x.size()), {&q, &x});
}

Tensor quantize(const Tensor& x, float scale, Dtype dtype) {
  Tensor q = Tensor::empty(x.device(), x.shape(), dtype);
  quantize_(q, x, scale);
  return q;
}

void dequantize_(const Tensor& x, const Tensor& q, float scale) {
  const Operation op("dequantize", {&x, &q});
  check_scaled(op, q, x, scale);
  op.kernels().dequantize(x, q, scale);
  op.done(static_cast<double>(x.size()), {&x, &q});
}

Tensor dequantize(const Tensor& q, float scale, Dtype dtype) {
  Tensor x = Tensor::empty(q.device(), q.shape(), dtype);
  dequantize_(x, q, scale);
  return x;
}

void add_(const Tensor& x, const Tensor& y) {
  const Operation op("add", {&x, &y});
  op.is_float(x);
  op.is_float(y);
  op.same_size(x, y);
  op.kernels().add(x, x, y);
  op.done(static_cast<double>(x.size()), {&x, &x, &y});
}

Tensor add(const Tensor& x, const Tensor& y) {
  const Operation op("add", {&x, &y});
  op.is_float(x);
  op.alike(y, x);
  Tensor sum = empty_like(x);
  op.kernels().add(sum, x, y);
  op.done(static_cast<double>(x.size()), {&sum, &x, &y});
  return sum;
}

void scale_(const Tensor& x, float factor) {
  const Operation op("scale", {&x});
  op.is_float(x);
  op.kernels().scale(x, factor);
  op.done(static_cast<double>(x.size()), {&x, &x});
}

void add_bias_(const Tensor& x, const Tensor& bias) {
  const Operation op("add_bias", {&x, &bias});
  op.is_float(x);
  op.has_rank(x, 2);
  op.has_dtype(bias, x.dtype());
  op.has_shape(bias, {x.dim(1)});
  op.kernels().add_bias(x, bias);
  op.done(static_cast<double>(x.size()), {&x, &x, &bias});
}

void add_row_sums(const Tensor& sum, const Tensor& x) {
  const Operation op("add_row_sums", {&sum, &x});
  op.is_float(x);
  op.has_rank(x, 2);
  op.can_hold_sum(sum, x);
  op.has_shape(sum, {x.dim(1)});
  op.kernels().add_row_sums(sum, x);
  op.done(static_cast<double>(x.size()), {&sum, &sum, &x});
}

Tensor exp_difference(const Tensor& x, const Tensor& y) {
  const Operation op("exp_difference", {&x, &y});
  op.is_float(x);
  op.alike(x, y);
  Tensor out = empty_like(x);
  op.kernels().exp_difference(out, x, y);
  op.done(2.0 * static_cast<double>(x.size()), {&out, &x, &y});
  return out;
}

Tensor log_sum(const Tensor& shift, const Tensor& sum) {
  const Operation op("log_sum", {&shift, &sum});
  op.is_float(sum);
  op.alike(shift, sum);
  Tensor out = empty_like(sum);
  op.kernels().log_sum(out, shift, sum);
  op.done(2.0 * static_cast<double>(sum.size()), {&out, &shift, &sum});
  return out;
}

Tensor relu(const Tensor& x) {
  const Operation op("relu", {&x});
  op.is_float(x);
  Tensor y = empty_like(x);
  op.kernels().relu(y, x);
  op.done(static_cast<double>(x.size()), {&y, &x});
  return y;
}

Tensor relu_backward(const Tensor& dy, const Tensor& y) {
  const Operation op("relu_backward", {&dy, &y});
  op.is_float(dy);
  op.alike(y, dy);
  Tensor dx = empty_like(dy);
  op.kernels().relu_backward(dx, dy, y);
  op.done(static_cast<double>(dy.size()), {&dx, &dy, &y});
  return dx;
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  const Operation op("swiglu", {&gate, &up});
  op.is_float(gate);
  op.alike(up, gate);
  Tensor y = empty_like(gate);
  op.kernels().swiglu(y, gate, up);
  op.done(5.0 * static_cast<double>(y.size()), {&y, &gate, &up});
  return y;
}

SwigluGradients swiglu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up) {
  const Operation op("swiglu_backward", {&dy, &gate, &up});
  op.is_float(gate);
  op.alike(up, gate);
  op.alike(dy, gate);
  const SwigluGradients result{empty_like(gate), empty_like(up)};
  op.kernels().swiglu_backward(result, dy, gate, up);
  op.done(10.0 * static_cast<double>(dy.size()), {&dy, &gate, &up, &result.dgate, &result.dup});
  return result;
}

Tensor dropout(const Tensor& x, float probability, const DropoutKey& key) {
  const Operation op("dropout", {&x});
  op.is_float(x);
  expect(x.rank() >= 1, "dropout: the tensor must have a first dimension, its rows");
  expect(0 <= probability && probability < 1, "dropout: the probability ({}) must be at least 0 and below 1",
         probability);
  expect(key.rows_per_sample > 0, "dropout: rows per sample ({}) must be positive", key.rows_per_sample);
  Tensor y = empty_like(x);
  op.kernels().dropout(y, x, probability, key);
  op.done(static_cast<double>(x.size()), {&y, &x});
  return y;
}

}  // namespace ninefold::ops
