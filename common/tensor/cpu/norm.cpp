// RMSNorm with the residual add in the same pass. A row is read from memory once and then again from the cache.
#include <algorithm>
#include <cmath>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Floats;
using simd::load;
using simd::store;

template <typename T>
void normalise_row(T* y, T* sum, float* inverse_deviation, const T* x, const T* residual, const T* weight, float eps,
                   int64_t features) {
  const float squares = simd::sum_over_vectors(features, [&](int64_t i, auto in_use) {
    Floats value = load(x + i, in_use);
    if (residual) value = simd::store_rounded(sum + i, value + load(residual + i, in_use), in_use);
    return value * value;
  });
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(features) + eps);
  *inverse_deviation = inverse;
  const T* const normalised = residual ? sum : x;
  simd::for_each_vector(features, [&](int64_t i, auto in_use) {
    store(y + i, load(normalised + i, in_use) * inverse * load(weight + i, in_use), in_use);
  });
}

// With n = (x + residual) / deviation and g = dy * weight: dx = (g - n * mean(g * n)) / deviation + dsum.
// `normalised` is space for n.
template <typename T>
void normalise_row_backward(T* dx, float* dweight, float* normalised, const T* dy, const T* x, const T* residual,
                            const T* weight, float inverse, const T* dsum, int64_t features) {
  const float dot = simd::sum_over_vectors(features, [&](int64_t i, auto in_use) {
    Floats value = load(x + i, in_use);
    if (residual) value = simd::rounded_to<T>(value + load(residual + i, in_use));
    value = value * inverse;
    store(normalised + i, value, in_use);
    const Floats product = load(dy + i, in_use) * value;
    store(dweight + i, load(dweight + i, in_use) + product, in_use);
    return product * load(weight + i, in_use);
  });
  const float mean = dot / static_cast<float>(features);
  simd::for_each_vector(features, [&](int64_t i, auto in_use) {
    const Floats scaled = load(dy + i, in_use) * load(weight + i, in_use);
    Floats gradient = (scaled - load(normalised + i, in_use) * mean) * inverse;
    if (dsum) gradient = gradient + load(dsum + i, in_use);
    store(dx + i, gradient, in_use);
  });
}

// The address of a row, nullptr of an absent tensor.
template <typename T>
T* row_of(const Tensor& x, int64_t row, int64_t features) {
  return x.defined() ? x.data<T>() + row * features : nullptr;
}

}  // namespace

void CpuKernels::rms_norm(const ops::RmsNorm& out, const Tensor& x, const Tensor& residual, const Tensor& weight,
                          float eps) {
  const int64_t features = weight.size();
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t row = 0; row < out.inverse_deviation.size(); ++row) {
      normalise_row(row_of<T>(out.y, row, features), row_of<T>(out.sum, row, features),
                    out.inverse_deviation.data<float>() + row, row_of<T>(x, row, features),
                    row_of<T>(residual, row, features), weight.data<T>(), eps, features);
    }
  });
}

void CpuKernels::rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                                   const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                                   const Tensor& dweight) {
  const int64_t features = weight.size();
  const Tensor partial = workspace(x.device(), features, Dtype::f32);
  const Tensor normalised = workspace(x.device(), features, Dtype::f32);
  std::fill_n(partial.data<float>(), features, 0.0f);
  for_float_types(x.dtype(), dweight.dtype(), [&](auto type, auto dweight_type) {
    using T = decltype(type);
    for (int64_t row = 0; row < inverse_deviation.size(); ++row) {
      normalise_row_backward(row_of<T>(dx, row, features), partial.data<float>(), normalised.data<float>(),
                             row_of<T>(dy, row, features), row_of<T>(x, row, features),
                             row_of<T>(residual, row, features), weight.data<T>(), inverse_deviation.data<float>()[row],
                             row_of<T>(dsum, row, features), features);
    }
    add_in_place(dweight.data<decltype(dweight_type)>(), partial.data<float>(), features);
  });
}

}  // namespace ninefold
