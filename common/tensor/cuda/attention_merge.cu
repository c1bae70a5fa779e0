// Two attentions of the same queries over different keys become one: each is weighted with exp(its log-sum-exp - the
// whole one), which is at most 1 however large the scores are.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// One block a row of a head.
template <typename S, typename B>
struct MergeRow {
  S* sum;
  float* log_sum_exp;
  const B* block;
  const float* of_block;
  int64_t heads, queries, width;

  __device__ void operator()(int64_t at) const {
    const float before = log_sum_exp[at], added = of_block[at];
    __syncthreads();  // everyone has read what the first thread is about to change
    if (added == -INFINITY) return;
    const float largest = fmaxf(before, added);
    const float a = expf(before - largest), b = expf(added - largest);
    const int64_t query = at % queries, head = at / queries % heads, batch = at / queries / heads;
    const int64_t offset = ((batch * queries + query) * heads + head) * width;
    for (int64_t i = offset + threadIdx.x; i < offset + width; i += blockDim.x) {
      sum[i] = S(static_cast<float>(sum[i]) * (a / (a + b)) + static_cast<float>(block[i]) * (b / (a + b)));
    }
    if (threadIdx.x == 0) log_sum_exp[at] = largest + logf(a + b);
  }
};

}  // namespace

void GpuKernels::merge_attention(const ops::Attention& sum, const ops::Attention& block,
                                 const ops::AttentionShape& shape) {
  for_float_types(sum.out.dtype(), block.out.dtype(), [&](auto type, auto block_type) {
    using S = decltype(type);
    using B = decltype(block_type);
    for_each_row(
        stream_, sum.log_sum_exp.size(),
        MergeRow<S, B>{sum.out.address<S>(), sum.log_sum_exp.address<float>(), block.out.address<B>(),
                       block.log_sum_exp.address<float>(), shape.heads, sum.log_sum_exp.dim(2), shape.head_dim});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
