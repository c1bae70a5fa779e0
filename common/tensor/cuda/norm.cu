// RMSNorm with the residual add in the same pass: one block a row.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// Element i of x, or of x + residual, rounded as it is stored.
template <typename T>
__device__ float element_of_sum(const T* x, const T* residual, int64_t i) {
  const float value = static_cast<float>(x[i]);
  return residual ? static_cast<float>(T(value + static_cast<float>(residual[i]))) : value;
}

template <typename T>
struct Normalise {
  T *y, *sum;
  float* inverse_deviation;
  const T *x, *residual, *weight;
  float eps;
  int64_t features;

  __device__ void operator()(int64_t row) const {
    const int64_t begin = row * features;
    float squares = 0;
    for (int64_t i = threadIdx.x; i < features; i += blockDim.x) {
      const float value = element_of_sum(x, residual, begin + i);
      if (residual) sum[begin + i] = T(value);
      squares += value * value;
    }
    squares = sum_over_block(squares);
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(features) + eps);
    if (threadIdx.x == 0) inverse_deviation[row] = inverse;
    const T* const normalised = residual ? sum : x;
    for (int64_t i = threadIdx.x; i < features; i += blockDim.x) {
      y[begin + i] = T(static_cast<float>(normalised[begin + i]) * inverse * static_cast<float>(weight[i]));
    }
  }
};

// With n = (x + residual) / deviation and g = dy * weight: dx = (g - n * mean(g * n)) / deviation + dsum.
template <typename T>
struct NormaliseBackward {
  T* dx;
  const T *dy, *x, *residual, *weight;
  const float* inverse_deviation;
  const T* dsum;
  int64_t features;

  __device__ void operator()(int64_t row) const {
    const int64_t begin = row * features;
    const float inverse = inverse_deviation[row];
    float dot = 0;
    for (int64_t i = threadIdx.x; i < features; i += blockDim.x) {
      const float normalised = element_of_sum(x, residual, begin + i) * inverse;
      dot += static_cast<float>(dy[begin + i]) * static_cast<float>(weight[i]) * normalised;
    }
    const float mean = sum_over_block(dot) / static_cast<float>(features);
    for (int64_t i = threadIdx.x; i < features; i += blockDim.x) {
      const float normalised = element_of_sum(x, residual, begin + i) * inverse;
      const float scaled = static_cast<float>(dy[begin + i]) * static_cast<float>(weight[i]);
      const float past = dsum ? static_cast<float>(dsum[begin + i]) : 0.0f;
      dx[begin + i] = T((scaled - normalised * mean) * inverse + past);
    }
  }
};

// What a row adds to the weight's gradient.
template <typename T>
struct WeightGradient {
  const T *dy, *x, *residual;
  const float* inverse_deviation;
  int64_t features;

  __device__ float operator()(int64_t row, int64_t column) const {
    const int64_t i = row * features + column;
    return static_cast<float>(dy[i]) * (element_of_sum(x, residual, i) * inverse_deviation[row]);
  }
};

}  // namespace

void GpuKernels::rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                          float eps) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each_row(stream_, out.inverse_deviation.size(),
                 Normalise<T>{out.y.address<T>(), address_or_null<T>(out.sum), out.inverse_deviation.address<float>(),
                              x.address<T>(), address_or_null<T>(residual), weight.address<T>(), eps, weight.size()});
  });
}

void GpuKernels::rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                                   const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                                   const Tensor& dweight) {
  const int64_t rows = inverse_deviation.size(), features = weight.size();
  const float* const inverse = inverse_deviation.address<float>();
  for_float_types(x.dtype(), dweight.dtype(), [&](auto type, auto dweight_type) {
    using T = decltype(type);
    using W = decltype(dweight_type);
    const T* const added = address_or_null<T>(residual);
    add_column_sums(stream_, x.device(), dweight.address<W>(), rows, features,
                    WeightGradient<T>{dy.address<T>(), x.address<T>(), added, inverse, features});
    for_each_row(stream_, rows,
                 NormaliseBackward<T>{dx.address<T>(), dy.address<T>(), x.address<T>(), added, weight.address<T>(),
                                      inverse, address_or_null<T>(dsum), features});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
