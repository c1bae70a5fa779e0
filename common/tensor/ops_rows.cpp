// Rows taken by index, and added up again: the ways into and out of a mixture of experts.
#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

// index i32 [n, k] into rows [m, features]; weights f32 alike, or undefined.
void check_index(const Operation& op, const Tensor& sum, const Tensor& rows, const Tensor& index,
                 const Tensor& weights) {
  op.is_float(sum);
  op.is_float(rows);
  op.has_rank(sum, 2);
  op.has_rank(rows, 2);
  op.has_rank(index, 2);
  op.has_dtype(index, Dtype::i32);
  op.has_shape(rows, {rows.dim(0), sum.dim(1)});
  op.has_shape(index, {sum.dim(0), index.dim(1)});
  if (!weights.defined()) return;
  op.same_device(weights);
  op.has_dtype(weights, Dtype::f32);
  op.has_shape(weights, index.shape());
}

}  // namespace

Tensor gather_rows(const Tensor& x, const Tensor& index) {
  const Operation op("gather_rows", {&x, &index});
  op.is_float(x);
  op.has_rank(x, 2);
  op.has_rank(index, 1);
  op.has_dtype(index, Dtype::i32);
  const Tensor out = Tensor::empty(x.device(), {index.dim(0), x.dim(1)}, x.dtype());
  op.kernels().embedding(out, index, x, std::nullopt);
  op.done(0, {&index, &out, &out});
  return out;
}

void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) {
  const Operation op("add_weighted_rows", {&sum, &rows, &index});
  check_index(op, sum, rows, index, weights);
  op.kernels().add_weighted_rows(sum, rows, index, weights);
  op.done(2.0 * static_cast<double>(rows.size()), {&sum, &sum, &rows, &index, &weights});
}

WeightedRowsGradients weighted_rows_backward(const Tensor& dy, const Tensor& rows, const Tensor& index,
                                             const Tensor& weights) {
  const Operation op("weighted_rows_backward", {&dy, &rows, &index});
  check_index(op, dy, rows, index, weights);
  op.has_dtype(rows, dy.dtype());
  const WeightedRowsGradients result{empty_like(rows), Tensor::empty(dy.device(), index.shape(), Dtype::f32)};
  op.kernels().weighted_rows_backward(result, dy, rows, index, weights);
  op.done(3.0 * static_cast<double>(rows.size()), {&dy, &rows, &index, &weights, &result.drows, &result.dweights});
  return result;
}

}  // namespace ninefold::ops
