// Tensors with reproducible contents, and how tests compare them.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "common/tensor/ops.h"

namespace ninefold {

// Uniform in [-1, 1), rounded to the type.
inline Tensor random_tensor(const DeviceHandle& device, const Shape& shape, Dtype dtype, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(elements(shape));
  for (float& value : values) value = static_cast<float>(generator() >> 8) / static_cast<float>(1 << 23) - 1.0f;
  return ops::cast(Tensor::from(device, shape, values), dtype);
}

// The elements of an f32 or bf16 tensor.
inline std::vector<double> doubles(const Tensor& x) {
  const std::vector<float> values = ops::cast(x, Dtype::f32).to_vector<float>();
  return {values.begin(), values.end()};
}

inline Tensor copy_of(const Tensor& x) {
  const Tensor copy = Tensor::empty(x.device(), x.shape(), x.dtype());
  ops::copy_(copy, x);
  return copy;
}

// A copy that starts `by` elements after an aligned address.
inline Tensor shifted(const Tensor& x, int64_t by) {
  const Tensor space = Tensor::empty(x.device(), {x.size() + by}, x.dtype());
  const Tensor copy = space.slice(by, x.shape());
  ops::copy_(copy, x);
  return copy;
}

inline bool same_bits(const Tensor& x, const Tensor& y) {
  if (x.shape() != y.shape() || x.dtype() != y.dtype()) return false;
  return x.size() == 0 || std::memcmp(x.raw(), y.raw(), static_cast<size_t>(x.bytes())) == 0;
}

}  // namespace ninefold
