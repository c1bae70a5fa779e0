// Data whose sums are exact in every type, and its way into tensors and back.
#pragma once

#include <vector>

#include "common/tensor/ops.h"

namespace ninefold {

using Values = std::vector<float>;

// What rank `rank` contributes as element i: small integers, so that sums of eight fit bf16's eight bits.
inline float element(int rank, int64_t i) { return static_cast<float>((i * 7 + rank * 3) % 17 - 8); }

inline Values contribution(int rank, int64_t size, int64_t first = 0) {
  Values values(size);
  for (int64_t i = 0; i < size; ++i) values[i] = element(rank, first + i);
  return values;
}

// An empty shape: one dimension.
inline Tensor tensor_of(const DeviceHandle& device, Dtype dtype, const Values& values, Shape shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
  if (dtype == Dtype::i32) return Tensor::from(device, shape, std::vector<int32_t>(values.begin(), values.end()));
  return ops::cast(Tensor::from(device, shape, values), dtype);
}

inline Values values(const Tensor& tensor) {
  if (tensor.dtype() == Dtype::i32) {
    const auto integers = tensor.to_vector<int32_t>();
    return Values(integers.begin(), integers.end());
  }
  return ops::cast(tensor, Dtype::f32).to_vector<float>();
}

}  // namespace ninefold
