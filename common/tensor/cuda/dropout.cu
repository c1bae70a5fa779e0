// Dropout whose mask is a pure function of global indices.
#include <cmath>

#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"
#include "common/tensor/cuda/philox.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// A key of its own for every (seed, step, layer): what Philox makes of them.
uint64_t layer_key(const ops::DropoutKey& key) {
  const auto low = [](int64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](int64_t x) { return static_cast<uint32_t>(x >> 32); };
  const RandomWords random = philox({{low(key.step), high(key.step), low(key.layer), high(key.layer)}}, key.seed);
  return random.word[0] | static_cast<uint64_t>(random.word[1]) << 32;
}

// Keeps the elements whose 32 random bits reach `threshold`. Element i of a row draws from counter (i / 4 in 64 bits,
// position, sample).
template <typename T>
struct Drop {
  T* y;
  const T* x;
  int64_t features, rows_per_sample, first_sample;
  uint32_t threshold;
  float scale;
  uint64_t key;

  __device__ void operator()(int64_t i) const {
    const int64_t row = i / features, column = i % features, group = column / 4;
    const auto position = static_cast<uint32_t>(row % rows_per_sample);
    const auto sample = static_cast<uint32_t>(first_sample + row / rows_per_sample);
    const RandomWords random =
        philox({{static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), position, sample}}, key);
    y[i] = T(random.word[column % 4] >= threshold ? static_cast<float>(x[i]) * scale : 0.0f);
  }
};

}  // namespace

void GpuKernels::dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) {
  if (x.size() == 0) return;
  const auto threshold = static_cast<uint32_t>(std::llround(std::ldexp(static_cast<double>(probability), 32)));
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(),
             Drop<T>{y.address<T>(), x.address<T>(), x.size() / x.dim(0), key.rows_per_sample, key.first_sample,
                     threshold, 1.0f / (1.0f - probability), layer_key(key)});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
