// Attention as its formula says, in double precision, whatever the positions.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/support/numbers.h"

namespace ninefold {

using Values = std::vector<double>;
using Indices = std::vector<int32_t>;

struct AttentionProblem {
  ops::AttentionShape shape;
  Indices q_positions, k_positions;
  Tensor q, k, v, dout;

  int64_t queries() const { return static_cast<int64_t>(q_positions.size()); }
  int64_t keys() const { return static_cast<int64_t>(k_positions.size()); }
};

struct ExpectedAttention {
  Values out, log_sum_exp, dq, dk, dv;
};

// The whole of attention, forward and backward, one row of scores at a time.
inline ExpectedAttention naive(const AttentionProblem& of) {
  const int64_t batch = of.shape.batch, heads = of.shape.heads, kv_heads = of.shape.kv_heads, d = of.shape.head_dim;
  const Values q = doubles(of.q), k = doubles(of.k), v = doubles(of.v), dout = doubles(of.dout);
  ExpectedAttention result{Values(q.size()), Values(batch * heads * of.queries(), -INFINITY), Values(q.size()),
                           Values(k.size()), Values(k.size())};
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  const auto dot = [d](const double* x, const double* y) { return std::inner_product(x, x + d, y, 0.0); };
  for (int64_t row = 0; row < batch * heads * of.queries(); ++row) {
    const int64_t query = row % of.queries(), head = row / of.queries() % heads, b = row / of.queries() / heads;
    const auto at_key = [&](int64_t key) { return ((b * of.keys() + key) * kv_heads + head / (heads / kv_heads)) * d; };
    const int64_t at = ((b * of.queries() + query) * heads + head) * d;
    Values p(of.keys(), -INFINITY);
    for (int64_t key = 0; key < of.keys(); ++key) {
      if (of.k_positions[key] <= of.q_positions[query]) p[key] = scale * dot(&q[at], &k[at_key(key)]);
    }
    const double largest = p.empty() ? -INFINITY : *std::max_element(p.begin(), p.end());
    if (largest == -INFINITY) continue;
    double sum = 0;
    for (double& value : p) sum += value = std::exp(value - largest);
    result.log_sum_exp[row] = largest + std::log(sum);
    double dot_of_out = 0;
    for (int64_t key = 0; key < of.keys(); ++key) {
      p[key] /= sum;
      dot_of_out += p[key] * dot(&dout[at], &v[at_key(key)]);
      for (int64_t i = 0; i < d; ++i) result.out[at + i] += p[key] * v[at_key(key) + i];
    }
    for (int64_t key = 0; key < of.keys(); ++key) {
      const double ds = scale * p[key] * (dot(&dout[at], &v[at_key(key)]) - dot_of_out);
      for (int64_t i = 0; i < d; ++i) {
        result.dv[at_key(key) + i] += p[key] * dout[at + i];
        result.dq[at + i] += ds * k[at_key(key) + i];
        result.dk[at_key(key) + i] += ds * q[at + i];
      }
    }
  }
  return result;
}

}  // namespace ninefold
