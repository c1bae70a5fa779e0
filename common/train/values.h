// The elements of tensors as the check compares them: as floats on the host, sums in f64.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "common/tensor/tensor.h"

namespace ninefold {

using Values = std::vector<float>;

inline Values to_floats(const Tensor& tensor) {
  if (tensor.dtype() == Dtype::f32) return tensor.to_vector<float>();
  const auto widened = [](const auto& narrow) { return Values(narrow.begin(), narrow.end()); };
  return tensor.dtype() == Dtype::bf16 ? widened(tensor.to_vector<bf16>()) : widened(tensor.to_vector<f16>());
}

inline double norm_of(const Values& values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

inline double distance(const Values& a, const Values& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    squares += difference * difference;
  }
  return std::sqrt(squares);
}

inline bool same_bits(const Values& a, const Values& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace ninefold
