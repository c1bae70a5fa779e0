// Dropout whose mask is a pure function of global indices.
#include <algorithm>
#include <cmath>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"
#include "common/tensor/cpu/philox.h"

namespace ninefold {
namespace {

using simd::load;
using simd::store;

// A key of its own for every (seed, step, layer): what Philox makes of them.
uint64_t layer_key(const ops::DropoutKey& key) {
  const auto lane = [](uint64_t word) { return simd::UnsignedLongs{} + (word & 0xffffffffu); };
  const auto step = static_cast<uint64_t>(key.step), layer = static_cast<uint64_t>(key.layer);
  const simd::PhiloxCounter random =
      simd::philox({{lane(step), lane(step >> 32), lane(layer), lane(layer >> 32)}}, key.seed);
  return random.word[0][0] | random.word[1][0] << 32;
}

// Keeps the elements of a row whose 32 random bits reach `threshold`. Element i draws from counter
// (i / 4 in 64 bits, position, sample).
template <typename T>
void drop_row(T* y, const T* x, int64_t features, uint32_t threshold, float scale, uint32_t position, uint32_t sample,
              uint64_t key) {
  for (int64_t begin = 0; begin < features; begin += simd::philox_elements) {
    const auto words = simd::philox_words(static_cast<uint64_t>(begin / 4), position, sample, key);
    const int64_t count = std::min<int64_t>(simd::philox_elements, features - begin);
    simd::for_each_vector(count, [&](int64_t i, auto in_use) {
      const simd::Floats scaled = load(x + begin + i, in_use) * scale;
      const simd::Words random = words[static_cast<size_t>(i / simd::lanes)];
      store(y + begin + i, random >= threshold ? scaled : simd::broadcast(0), in_use);
    });
  }
}

}  // namespace

void CpuKernels::dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) {
  if (x.size() == 0) return;
  const int64_t rows = x.dim(0), features = x.size() / rows;
  const auto threshold = static_cast<uint32_t>(std::llround(std::ldexp(static_cast<double>(probability), 32)));
  const float scale = 1.0f / (1.0f - probability);
  const uint64_t stream = layer_key(key);
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t row = 0; row < rows; ++row) {
      const auto position = static_cast<uint32_t>(row % key.rows_per_sample);
      const auto sample = static_cast<uint32_t>(key.first_sample + row / key.rows_per_sample);
      drop_row(y.data<T>() + row * features, x.data<T>() + row * features, features, threshold, scale, position, sample,
               stream);
    }
  });
}

}  // namespace ninefold
