// Two attentions of the same queries over different keys become one: each is weighted with exp(its log-sum-exp - the
// whole one), which is at most 1 however large the scores are.
#include <cmath>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

struct Weights {
  float of_sum, of_block, log_sum_exp;
};

// One of the two is finite.
Weights weigh(float sum, float block) {
  const float largest = std::max(sum, block);
  const float a = std::exp(sum - largest), b = std::exp(block - largest);
  return {a / (a + b), b / (a + b), largest + std::log(a + b)};
}

template <typename S, typename B>
void merge_row(S* sum, const B* block, const Weights& weights, int64_t width) {
  simd::for_each_vector(width, [&](int64_t i, auto in_use) {
    const simd::Floats merged =
        simd::load(sum + i, in_use) * weights.of_sum + simd::load(block + i, in_use) * weights.of_block;
    simd::store(sum + i, merged, in_use);
  });
}

}  // namespace

void CpuKernels::merge_attention(const ops::Attention& sum, const ops::Attention& block,
                                 const ops::AttentionShape& shape) {
  const int64_t queries = sum.log_sum_exp.dim(2), width = shape.head_dim, row = shape.heads * width;
  float* const log_sum_exp = sum.log_sum_exp.data<float>();
  const float* const of_block = block.log_sum_exp.data<float>();
  for_float_types(sum.out.dtype(), block.out.dtype(), [&](auto type, auto block_type) {
    auto* const to = sum.out.data<decltype(type)>();
    const auto* const from = block.out.data<decltype(block_type)>();
    for (int64_t at = 0; at < shape.batch * shape.heads * queries; ++at) {
      if (of_block[at] == -std::numeric_limits<float>::infinity()) continue;
      const int64_t query = at % queries, head = at / queries % shape.heads, batch = at / queries / shape.heads;
      const int64_t offset = (batch * queries + query) * row + head * width;
      const Weights weights = weigh(log_sum_exp[at], of_block[at]);
      merge_row(to + offset, from + offset, weights, width);
      log_sum_exp[at] = weights.log_sum_exp;
    }
  });
}

}  // namespace ninefold
