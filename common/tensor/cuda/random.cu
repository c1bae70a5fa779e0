// Values by global index: element i comes from word i % 4 of Philox's counter i / 4, whatever range is drawn.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"
#include "common/tensor/cuda/philox.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

using Kind = ops::Distribution::Kind;

// The middle of a word's interval of (0, 1).
__device__ inline double unit(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// Uniform in (-1, 1).
struct Uniform {
  __device__ float operator()(const RandomWords& random, int which) const {
    return static_cast<float>(2.0 * unit(random.word[which]) - 1.0);
  }
};

// Standard normal: an even and an odd element share a radius and an angle (Box and Muller 1958).
struct Normal {
  __device__ float operator()(const RandomWords& random, int which) const {
    const int even = which & ~1;
    const float radius = sqrtf(-2.0f * logf(static_cast<float>(unit(random.word[even]))));
    const double angle = 2.0 * 3.14159265358979323846 * unit(random.word[even + 1]);
    return radius * static_cast<float>(which == even ? cos(angle) : sin(angle));
  }
};

// Four elements, those of one counter, of which the first or the last may not be wanted.
template <typename T, typename Draw>
struct DrawFour {
  T* x;
  int64_t size, first_element;
  uint64_t key;
  float mean, width;
  Draw draw;

  __device__ void operator()(int64_t i) const {
    const int64_t group = first_element / 4 + i;
    const RandomWords random = philox({{static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0}}, key);
    for (int which = 0; which < 4; ++which) {
      const int64_t at = 4 * group + which - first_element;
      if (0 <= at && at < size) x[at] = T(draw(random, which) * width + mean);
    }
  }
};

template <typename Draw>
void fill_with(Stream stream, const Tensor& x, float mean, float width, uint64_t key, int64_t first_element,
               Draw draw) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const int64_t groups = (first_element + x.size() + 3) / 4 - first_element / 4;
    for_each(stream, x.size() > 0 ? groups : 0,
             DrawFour<T, Draw>{x.address<T>(), x.size(), first_element, key, mean, width, draw});
  });
}

}  // namespace

void GpuKernels::fill_random(const Tensor& x, const ops::Distribution& distribution, uint64_t key,
                             int64_t first_element) {
  const auto mean = static_cast<float>(distribution.mean), width = static_cast<float>(distribution.width);
  if (distribution.kind == Kind::constant) return fill(x, mean);
  if (distribution.kind == Kind::uniform) return fill_with(stream_, x, mean, width, key, first_element, Uniform());
  fill_with(stream_, x, mean, width, key, first_element, Normal());
}

}  // namespace ninefold::NINEFOLD_GPU
