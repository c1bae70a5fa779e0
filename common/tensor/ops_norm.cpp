// Normalisation, rotary positions and the embedding.
#include <cmath>

#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

void check_norm(const Operation& op, const Tensor& x, const Tensor& weight) {
  op.is_float(x);
  expect(x.rank() >= 1, "rms_norm: the tensor must have a last dimension to normalise over");
  op.has_dtype(weight, x.dtype());
  op.has_shape(weight, {x.dim(-1)});
}

}  // namespace

RmsNorm rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, float eps) {
  const Operation op("rms_norm", {&x, &weight});
  check_norm(op, x, weight);
  RmsNorm result{empty_like(x), {}, Tensor::empty(x.device(), {rows_of(x)}, Dtype::f32)};
  if (residual.defined()) {
    op.alike(residual, x);
    result.sum = empty_like(x);
  }
  op.kernels().rms_norm(result, x, residual, weight, eps);
  op.done(4.0 * static_cast<double>(x.size()),
          {&x, &residual, &weight, &result.y, &result.sum, &result.inverse_deviation});
  return result;
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& residual, const Tensor& weight,
                         const Tensor& inverse_deviation, const Tensor& dsum, const Tensor& dweight) {
  const Operation op("rms_norm_backward", {&dy, &x, &weight, &inverse_deviation, &dweight});
  check_norm(op, x, weight);
  op.alike(dy, x);
  op.can_hold_sum(dweight, weight);
  op.has_shape(dweight, weight.shape());
  op.has_dtype(inverse_deviation, Dtype::f32);
  op.has_shape(inverse_deviation, {rows_of(x)});
  for (const Tensor* optional : {&residual, &dsum}) {
    if (optional->defined()) op.alike(*optional, x);
  }
  Tensor dx = empty_like(x);
  op.kernels().rms_norm_backward(dx, dy, x, residual, weight, inverse_deviation, dsum, dweight);
  op.done(9.0 * static_cast<double>(x.size()),
          {&dy, &x, &residual, &weight, &inverse_deviation, &dsum, &dweight, &dweight, &dx});
  return dx;
}

std::vector<double> rope_frequencies(int64_t head_dim, double theta) {
  expect(head_dim > 0 && head_dim % 2 == 0, "rope: head width ({}) must be even", head_dim);
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  }
  return frequencies;
}

void rope_(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies, RopeDirection direction) {
  const Operation op("rope", {&x, &positions});
  op.is_float(x);
  op.has_rank(x, 2);
  op.has_rank(positions, 1);
  op.has_dtype(positions, Dtype::i32);
  const auto head_dim = static_cast<int64_t>(2 * frequencies.size());
  expect(head_dim > 0 && x.dim(1) % head_dim == 0, "rope: head width ({}) must divide the row ({})", head_dim,
         x.dim(1));
  expect(positions.size() > 0 ? x.dim(0) % positions.size() == 0 : x.dim(0) == 0,
         "rope: the rows ({}) must be whole sequences of {} positions", x.dim(0), positions.size());
  op.kernels().rope(x, positions, frequencies, direction);
  op.done(3.0 * static_cast<double>(x.size()), {&x, &x, &positions});
}

Tensor embedding(const Tensor& tokens, const Tensor& table, std::optional<VocabularyPart> part) {
  const Operation op("embedding", {&tokens, &table});
  op.has_dtype(tokens, Dtype::i32);
  op.has_rank(tokens, 1);
  op.is_float(table);
  op.has_rank(table, 2);
  expect(!part || part->count <= table.dim(0), "embedding: a table of {} rows has no {}", table.dim(0), part->count);
  Tensor out = Tensor::empty(table.device(), {tokens.size(), table.dim(1)}, table.dtype());
  op.kernels().embedding(out, tokens, table, part);
  op.done(0, {&tokens, &out, &out});
  return out;
}

void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                        std::optional<VocabularyPart> part) {
  const Operation op("embedding_backward", {&dtable, &tokens, &dy});
  op.has_dtype(tokens, Dtype::i32);
  op.has_rank(tokens, 1);
  op.has_rank(dtable, 2);
  op.is_float(dy);
  op.can_hold_sum(dtable, dy);
  op.has_shape(dy, {tokens.size(), dtable.dim(1)});
  op.kernels().embedding_backward(dtable, tokens, dy, part);
  op.done(static_cast<double>(dy.size()), {&tokens, &dy, &dy, &dy});
}

}  // namespace ninefold::ops
