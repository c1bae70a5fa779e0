// Rotary positions: a table of sines and cosines, made once a call in f64 and rounded, serves all sequences and heads.
#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Doubles;
using simd::Floats;
using simd::load;
using simd::store;

struct RotationTable {
  Tensor cosine, sine;  // f32 [length, head_dim / 2]
};

// Pair i of position p turns by p * frequencies[i]; the other way for the backward.
RotationTable rotation_table(const Tensor& positions, std::vector<double> frequencies, double sign) {
  const auto length = positions.size(), pairs = static_cast<int64_t>(frequencies.size());
  // Whole vectors, so that reading past the last frequency is reading zero.
  frequencies.resize(frequencies.size() + simd::lanes, 0.0);
  const RotationTable table{workspace(positions.device(), length * pairs, Dtype::f32),
                            workspace(positions.device(), length * pairs, Dtype::f32)};
  for (int64_t p = 0; p < length; ++p) {
    const double turns = sign * positions.data<int32_t>()[p];
    simd::for_each_vector(pairs, [&](int64_t i, auto in_use) {
      const double* const from = frequencies.data() + i;
      const auto lower = simd::sine_cosine(simd::load_doubles(from) * turns);
      const auto upper = simd::sine_cosine(simd::load_doubles(from + simd::lanes / 2) * turns);
      store(table.cosine.data<float>() + p * pairs + i, simd::join(lower.cosine, upper.cosine), in_use);
      store(table.sine.data<float>() + p * pairs + i, simd::join(lower.sine, upper.sine), in_use);
    });
  }
  return table;
}

// Turns the pairs (first[i], second[i]).
template <typename T>
void rotate_head(T* first, T* second, const float* cosine, const float* sine, int64_t pairs) {
  simd::for_each_vector(pairs, [&](int64_t i, auto in_use) {
    const Floats a = load(first + i, in_use), b = load(second + i, in_use);
    const Floats c = load(cosine + i, in_use), s = load(sine + i, in_use);
    store(first + i, a * c - b * s, in_use);
    store(second + i, b * c + a * s, in_use);
  });
}

}  // namespace

void CpuKernels::rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
                      ops::RopeDirection direction) {
  const double sign = direction == ops::RopeDirection::forward ? 1.0 : -1.0;
  const RotationTable table = rotation_table(positions, frequencies, sign);
  const auto pairs = static_cast<int64_t>(frequencies.size());
  const int64_t length = positions.size(), head_dim = 2 * pairs, heads = x.dim(1) / head_dim;
  for_float_type(x.dtype(), [&](auto type) {
    for (int64_t row = 0; row < x.dim(0); ++row) {
      const int64_t entry = row % length * pairs;
      for (int64_t head = 0; head < heads; ++head) {
        auto* const first = x.data<decltype(type)>() + row * x.dim(1) + head * head_dim;
        rotate_head(first, first + pairs, table.cosine.data<float>() + entry, table.sine.data<float>() + entry, pairs);
      }
    }
  });
}

}  // namespace ninefold
