// Weighted sums of rows found by index, and their gradients: how a mixture of experts adds up what its experts gave.
#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

float weight_at(const float* weights, int64_t i) { return weights ? weights[i] : 1.0f; }
const float* weights_or_null(const Tensor& weights) { return weights.defined() ? weights.data<float>() : nullptr; }

}  // namespace

void CpuKernels::add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) {
  const int64_t features = sum.dim(1), choices = index.dim(1);
  const int32_t* const row_of = index.data<int32_t>();
  const float* const weight = weights_or_null(weights);
  for_float_types(sum.dtype(), rows.dtype(), [&](auto sum_type, auto type) {
    auto* const to = sum.data<decltype(sum_type)>();
    const auto* const from = rows.data<decltype(type)>();
    for (int64_t i = 0; i < sum.dim(0); ++i) {
      simd::for_each_vector(features, [&](int64_t column, auto in_use) {
        simd::Floats total = simd::load(to + i * features + column, in_use);
        for (int64_t choice = i * choices; choice < (i + 1) * choices; ++choice) {
          if (row_of[choice] < 0) continue;
          total += simd::load(from + row_of[choice] * features + column, in_use) * weight_at(weight, choice);
        }
        simd::store(to + i * features + column, total, in_use);
      });
    }
  });
}

void CpuKernels::weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                                        const Tensor& index, const Tensor& weights) {
  const int64_t features = dy.dim(1), choices = index.dim(1);
  const int32_t* const row_of = index.data<int32_t>();
  const float* const weight = weights_or_null(weights);
  float* const dweight = out.dweights.data<float>();
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t choice = 0; choice < index.size(); ++choice) {
      dweight[choice] = 0;
      if (row_of[choice] < 0) continue;
      const T* const gradient = dy.data<T>() + choice / choices * features;
      const T* const row = rows.data<T>() + row_of[choice] * features;
      T* const drow = out.drows.data<T>() + row_of[choice] * features;
      const float factor = weight_at(weight, choice);
      dweight[choice] = simd::sum_over_vectors(features, [&](int64_t column, auto in_use) {
        const simd::Floats d = simd::load(gradient + column, in_use);
        simd::store(drow + column, d * factor, in_use);
        return d * simd::load(row + column, in_use);
      });
    }
  });
}

}  // namespace ninefold
