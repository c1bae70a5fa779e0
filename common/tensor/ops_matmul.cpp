// Matmul and attention: where nearly all arithmetic of a model happens.
#include <algorithm>
#include <numeric>

#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

struct MatmulShape {
  int64_t m, n, k;
};

MatmulShape matmul_shape(const Operation& op, const Tensor& a, const Tensor& b, const MatmulOptions& options) {
  op.has_rank(a, 2);
  op.has_rank(b, 2);
  const int64_t m = a.dim(options.transpose_a ? 1 : 0), k = a.dim(options.transpose_a ? 0 : 1);
  const int64_t n = b.dim(options.transpose_b ? 0 : 1), b_k = b.dim(options.transpose_b ? 1 : 0);
  expect(k == b_k, "matmul: {}{} and {}{} differ in the dimension that is summed over ({} and {})",
         to_string(a.shape()), options.transpose_a ? " transposed" : "", to_string(b.shape()),
         options.transpose_b ? " transposed" : "", k, b_k);
  return {m, n, k};
}

struct GroupsShape {
  int64_t rows, k, n;  // of a [rows, k]; n is the other dimension of the result
};

GroupsShape check_groups(const Operation& op, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                         const MatmulOptions& options) {
  op.has_rank(a, 2);
  const int64_t rows = a.dim(0), k = a.dim(1), total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  expect(total == rows, "grouped_matmul: the groups have {} rows, the matrix {}", total, rows);
  if (options.transpose_a) {
    op.has_rank(b, 2);
    op.has_shape(b, {rows, b.dim(1)});
    return {rows, k, b.dim(1)};
  }
  op.has_rank(b, 3);
  const int64_t n = b.dim(options.transpose_b ? 1 : 2);
  const auto groups = static_cast<int64_t>(counts.size());
  op.has_shape(b, options.transpose_b ? Shape{groups, n, k} : Shape{groups, k, n});
  return {rows, k, n};
}

// How many (query, key) pairs the causal mask lets through: one half where a sequence attends to itself, and where the
// positions have no values (meta).
double visible_pairs(const Tensor& q_positions, const Tensor& k_positions, const AttentionShape& shape) {
  if (shape.visible_pairs) return static_cast<double>(*shape.visible_pairs);
  const double queries = static_cast<double>(q_positions.size()), keys = static_cast<double>(k_positions.size());
  const bool is_of_itself = q_positions.raw() == k_positions.raw() && queries == keys;
  if (is_of_itself || q_positions.device()->type() == DeviceType::meta) return queries * (keys + 1) / 2;
  std::vector<int32_t> sorted = k_positions.to_vector<int32_t>();
  std::sort(sorted.begin(), sorted.end());
  double pairs = 0;
  for (const int32_t position : q_positions.to_vector<int32_t>()) {
    pairs += static_cast<double>(std::upper_bound(sorted.begin(), sorted.end(), position) - sorted.begin());
  }
  return pairs;
}

// FLOPs of `matmuls` products of query and key blocks, over visible pairs only. Computing the scores again in the
// backward does not count.
double attention_flops(const Operation& op, const Tensor& q_positions, const Tensor& k_positions,
                       const AttentionShape& shape, int matmuls) {
  if (!op.observed()) return 0;
  const double each = 2.0 * static_cast<double>(shape.batch * shape.heads * shape.head_dim);
  return matmuls * each * visible_pairs(q_positions, k_positions, shape);
}

void check_attention(const Operation& op, const Tensor& q, const Tensor& q_positions, const Tensor& k, const Tensor& v,
                     const Tensor& k_positions, const AttentionShape& shape) {
  expect(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0,
         "attention: heads ({}) must be divisible by kv-heads ({})", shape.heads, shape.kv_heads);
  op.is_float(q);
  op.has_dtype(q_positions, Dtype::i32);
  op.has_dtype(k_positions, Dtype::i32);
  op.has_rank(q_positions, 1);
  op.has_rank(k_positions, 1);
  op.has_shape(q, {shape.batch * q_positions.size(), shape.heads * shape.head_dim});
  op.has_shape(k, {shape.batch * k_positions.size(), shape.kv_heads * shape.head_dim});
  op.has_dtype(k, q.dtype());
  op.alike(v, k);
}

}  // namespace

void matmul_into(const Tensor& out, const Tensor& a, const Tensor& b, MatmulOptions options) {
  const Operation op("matmul", {&out, &a, &b});
  const auto [m, n, k] = matmul_shape(op, a, b, options);
  op.is_float(a);
  op.has_dtype(b, a.dtype());
  op.can_hold_sum(out, a);
  op.has_shape(out, {m, n});
  if (k > 0 && out.size() > 0) {
    op.kernels().matmul(out, a, b, options);
  } else if (!options.accumulate) {
    op.kernels().fill(out, 0);
  }
  const Tensor read_too = options.accumulate ? out : Tensor();
  op.done(2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k), {&out, &a, &b, &read_too});
}

Tensor matmul(const Tensor& a, const Tensor& b, MatmulOptions options) {
  const Operation op("matmul", {&a, &b});
  const auto [m, n, k] = matmul_shape(op, a, b, options);
  expect(!options.accumulate, "matmul: a new tensor of {} x {} holds nothing to accumulate into", m, n);
  Tensor out = Tensor::empty(a.device(), {m, n}, a.dtype());
  matmul_into(out, a, b, options);
  return out;
}

void matmul_f8_into(const Tensor& out, const Tensor& a, float a_scale, const Tensor& b, float b_scale,
                    MatmulOptions options) {
  const Operation op("matmul_f8", {&out, &a, &b});
  const auto [m, n, k] = matmul_shape(op, a, b, options);
  op.is_f8(a);
  op.is_f8(b);
  op.is_float(out);
  op.has_shape(out, {m, n});
  if (m * n * k > 0 && op.kernels().matmul_f8(out, a, b, a_scale * b_scale, options)) {
    const Tensor read_too = options.accumulate ? out : Tensor();
    return op.done(2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
                   {&out, &a, &b, &read_too});
  }
  const MemoryScope workspace(*out.device(), MemoryKind::workspace);
  const Tensor left = dequantize(a, a_scale, Dtype::f32), right = dequantize(b, b_scale, Dtype::f32);
  if (out.dtype() == Dtype::f32) return matmul_into(out, left, right, options);
  const Tensor product = matmul(left, right, {.transpose_a = options.transpose_a, .transpose_b = options.transpose_b});
  options.accumulate ? add_(out, product) : copy_(out, product);
}

void grouped_matmul_into(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                         MatmulOptions options) {
  const Operation op("grouped_matmul", {&out, &a, &b});
  op.is_float(a);
  op.has_dtype(b, a.dtype());
  op.can_hold_sum(out, a);
  const auto [rows, k, n] = check_groups(op, a, b, counts, options);
  op.has_shape(out, options.transpose_a ? Shape{static_cast<int64_t>(counts.size()), k, n} : Shape{rows, n});
  if (out.size() > 0 && k > 0 && (rows > 0 || !options.accumulate))
    op.kernels().grouped_matmul(out, a, b, counts, options);
  const Tensor read_too = options.accumulate ? out : Tensor();
  op.done(2.0 * static_cast<double>(rows) * static_cast<double>(n) * static_cast<double>(k), {&out, &a, &b, &read_too});
}

Tensor grouped_matmul(const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts, MatmulOptions options) {
  expect(!options.transpose_a && b.rank() == 3,
         "grouped_matmul: only the product with a matrix a group has a new tensor");
  Tensor out = Tensor::empty(a.device(), {a.dim(0), b.dim(options.transpose_b ? 1 : 2)}, a.dtype());
  grouped_matmul_into(out, a, b, counts, options);
  return out;
}

Attention attention_block(const Tensor& q, const Tensor& q_positions, const Tensor& k, const Tensor& v,
                          const Tensor& k_positions, const AttentionShape& shape) {
  const Operation op("attention_block", {&q, &q_positions, &k, &v, &k_positions});
  check_attention(op, q, q_positions, k, v, k_positions, shape);
  const Attention result{empty_like(q),
                         Tensor::empty(q.device(), {shape.batch, shape.heads, q_positions.size()}, Dtype::f32)};
  op.kernels().attention_block(result, q, q_positions, k, v, k_positions, shape);
  op.done(attention_flops(op, q_positions, k_positions, shape, 2), {&q, &k, &v, &result.out, &result.log_sum_exp});
  return result;
}

AttentionGradients attention_block_backward(const Tensor& dout, const Tensor& q, const Tensor& q_positions,
                                            const Tensor& k, const Tensor& v, const Tensor& k_positions,
                                            const Attention& forward, const AttentionShape& shape) {
  const Operation op("attention_block_backward",
                     {&dout, &q, &q_positions, &k, &v, &k_positions, &forward.out, &forward.log_sum_exp});
  check_attention(op, q, q_positions, k, v, k_positions, shape);
  op.alike(dout, q);
  op.alike(forward.out, q);
  op.has_dtype(forward.log_sum_exp, Dtype::f32);
  op.has_shape(forward.log_sum_exp, {shape.batch, shape.heads, q_positions.size()});
  const AttentionGradients result{empty_like(q), empty_like(k), empty_like(v)};
  op.kernels().attention_block_backward(result, dout, q, q_positions, k, v, k_positions, forward, shape);
  op.done(attention_flops(op, q_positions, k_positions, shape, 4),
          {&dout, &q, &k, &v, &forward.out, &forward.log_sum_exp, &result.dq, &result.dk, &result.dv});
  return result;
}

void merge_attention_(const Attention& sum, const Attention& block, const AttentionShape& shape) {
  const Operation op("merge_attention", {&sum.out, &sum.log_sum_exp, &block.out, &block.log_sum_exp});
  op.is_float(sum.out);
  op.is_float(block.out);
  op.has_shape(sum.out, block.out.shape());
  op.has_dtype(sum.log_sum_exp, Dtype::f32);
  op.alike(block.log_sum_exp, sum.log_sum_exp);
  expect(sum.log_sum_exp.size() * shape.head_dim == sum.out.size(), "merge_attention: {} rows of width {} are not {}",
         sum.log_sum_exp.size(), shape.head_dim, to_string(sum.out.shape()));
  op.kernels().merge_attention(sum, block, shape);
  op.done(3.0 * static_cast<double>(sum.out.size()),
          {&sum.out, &sum.out, &sum.log_sum_exp, &sum.log_sum_exp, &block.out, &block.log_sum_exp});
}

}  // namespace ninefold::ops
