// Tensors with reproducible contents, and how tests compare them.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "common/tensor/ops.h"

namespace ninefold {

// The types that operations compute with.
inline constexpr Dtype float_types[] = {Dtype::f32, Dtype::bf16, Dtype::f16};

// How far rounding to the type moves a number, relative to it.
inline double rounding_of(Dtype dtype) {
  return dtype == Dtype::bf16 ? 1.0 / 256 : dtype == Dtype::f16 ? 1.0 / 2048 : 0.0;
}

// How far rounding to the type may move this number; f16 ends at 2^-24.
inline double rounding_of(Dtype dtype, double value) {
  return std::max(rounding_of(dtype) * std::abs(value), dtype == Dtype::f16 ? 0x1p-25 : 0.0);
}

// Uniform in [-1, 1), rounded to the type.
inline Tensor random_tensor(const DeviceHandle& device, const Shape& shape, Dtype dtype, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(elements(shape));
  for (float& value : values) value = static_cast<float>(generator() >> 8) / static_cast<float>(1 << 23) - 1.0f;
  return ops::cast(Tensor::from(device, shape, values), dtype);
}

// The elements of a tensor of floats.
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

inline std::vector<std::byte> bytes_of(const Tensor& x) {
  std::vector<std::byte> bytes(static_cast<size_t>(x.bytes()));
  x.copy_to_host(bytes.data());
  return bytes;
}

inline bool same_bits(const Tensor& x, const Tensor& y) {
  if (x.shape() != y.shape() || x.dtype() != y.dtype()) return false;
  return bytes_of(x) == bytes_of(y);
}

}  // namespace ninefold
