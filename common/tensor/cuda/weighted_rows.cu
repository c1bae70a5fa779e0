// Weighted sums of rows found by index, and their gradients: how a mixture of experts adds up what its experts gave.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

__device__ inline float weight_at(const float* weights, int64_t i) { return weights ? weights[i] : 1.0f; }

template <typename S, typename T>
struct AddWeightedRows {
  S* sum;
  const T* rows;
  const int32_t* index;
  const float* weights;
  int64_t features, choices;

  __device__ void operator()(int64_t i) const {
    const int64_t row = i / features, column = i % features;
    float total = static_cast<float>(sum[i]);
    for (int64_t choice = row * choices; choice < (row + 1) * choices; ++choice) {
      if (index[choice] < 0) continue;
      total += static_cast<float>(rows[index[choice] * features + column]) * weight_at(weights, choice);
    }
    sum[i] = S(total);
  }
};

// One block a choice.
template <typename T>
struct WeightedRowsBackward {
  T* drows;
  float* dweights;
  const T *dy, *rows;
  const int32_t* index;
  const float* weights;
  int64_t features, choices;

  __device__ void operator()(int64_t choice) const {
    const int64_t row = index[choice];
    float dot = 0;
    for (int64_t i = threadIdx.x; row >= 0 && i < features; i += blockDim.x) {
      const float gradient = static_cast<float>(dy[choice / choices * features + i]);
      drows[row * features + i] = T(gradient * weight_at(weights, choice));
      dot += gradient * static_cast<float>(rows[row * features + i]);
    }
    dot = sum_over_block(dot);
    if (threadIdx.x == 0) dweights[choice] = dot;
  }
};

}  // namespace

void GpuKernels::add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) {
  for_float_types(sum.dtype(), rows.dtype(), [&](auto sum_type, auto type) {
    using S = decltype(sum_type);
    using T = decltype(type);
    for_each(stream_, sum.size(),
             AddWeightedRows<S, T>{sum.address<S>(), rows.address<T>(), index.address<int32_t>(),
                                   address_or_null<float>(weights), sum.dim(1), index.dim(1)});
  });
}

void GpuKernels::weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                                        const Tensor& index, const Tensor& weights) {
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, index.size(),
                 WeightedRowsBackward<T>{out.drows.address<T>(), out.dweights.address<float>(), dy.address<T>(),
                                         rows.address<T>(), index.address<int32_t>(), address_or_null<float>(weights),
                                         dy.dim(1), index.dim(1)});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
