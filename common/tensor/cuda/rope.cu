// Rotary positions: a table of sines and cosines, made once a call in f64 and rounded, serves all sequences and heads.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// A kernel's parameters hold them by value: no copy to wait for.
constexpr int64_t most_pairs = 256;
struct Frequencies {
  double of_pair[most_pairs];
};

// Pair i of position p turns by p * frequencies[i]; the other way for the backward.
struct Rotation {
  float *cosine, *sine;  // [length, pairs]
  const int32_t* positions;
  int64_t pairs;
  Frequencies frequencies;
  double sign;

  __device__ void operator()(int64_t i) const {
    const double angle = sign * positions[i / pairs] * frequencies.of_pair[i % pairs];
    cosine[i] = static_cast<float>(cos(angle));
    sine[i] = static_cast<float>(sin(angle));
  }
};

template <typename T>
struct Rotate {
  T* x;
  const float *cosine, *sine;
  int64_t length, heads, pairs;

  // i counts the pairs of x.
  __device__ void operator()(int64_t i) const {
    const int64_t pair = i % pairs, head = i / pairs, row = head / heads;
    const float c = cosine[row % length * pairs + pair], s = sine[row % length * pairs + pair];
    T *const first = x + head * 2 * pairs + pair, *const second = first + pairs;
    const float a = static_cast<float>(*first), b = static_cast<float>(*second);
    *first = T(a * c - b * s);
    *second = T(b * c + a * s);
  }
};

}  // namespace

void GpuKernels::rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
                      ops::RopeDirection direction) {
  const auto pairs = static_cast<int64_t>(frequencies.size());
  require(pairs <= most_pairs, "heads of {} elements are too wide for this device: at most {}", 2 * pairs,
          2 * most_pairs);
  const int64_t length = positions.size(), head_dim = 2 * pairs;
  const Tensor cosine = workspace(x.device(), length * pairs), sine = workspace(x.device(), length * pairs);
  Rotation rotation{cosine.address<float>(), sine.address<float>(), positions.address<int32_t>(), pairs, {}, 1.0};
  std::copy(frequencies.begin(), frequencies.end(), rotation.frequencies.of_pair);
  if (direction == ops::RopeDirection::backward) rotation.sign = -1.0;
  for_each(stream_, length * pairs, rotation);
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(
        stream_, x.size() / 2,
        Rotate<T>{x.address<T>(), cosine.address<float>(), sine.address<float>(), length, x.dim(1) / head_dim, pairs});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
