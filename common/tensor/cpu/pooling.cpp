// Largest of each 2 x 2 window, stride 2, and its backward. An odd last row or column belongs to no window.
#include <algorithm>

#include "common/tensor/cpu/cpu_kernels.h"

namespace ninefold {
namespace {

// Without branches, so that the loop over a row becomes vectors. A NaN wins, so that it does not vanish.
inline void choose(float& best, int32_t& which, float value, int32_t index) {
  const bool larger = (value > best) | (value != value);
  best = larger ? value : best;
  which = larger ? index : which;
}

// One output row from two input rows. `index` is 2 * (second row) + (second column), the first of equals.
template <typename T>
void pool_row(T* __restrict y, int32_t* __restrict index, const T* upper, const T* lower, int64_t width) {
  for (int64_t column = 0; column < width; ++column) {
    float best = static_cast<float>(upper[2 * column]);
    int32_t which = 0;
    choose(best, which, static_cast<float>(upper[2 * column + 1]), 1);
    choose(best, which, static_cast<float>(lower[2 * column]), 2);
    choose(best, which, static_cast<float>(lower[2 * column + 1]), 3);
    y[column] = T(best);
    index[column] = which;
  }
}

template <typename T>
void pool(const ops::MaxPool& out, const Tensor& x) {
  const int64_t height = out.y.dim(-2), width = out.y.dim(-1), x_height = x.dim(-2), x_width = x.dim(-1);
  const int64_t planes = x.dim(0) * x.dim(1);
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t row = 0; row < height; ++row) {
      const T* const upper = x.data<T>() + (plane * x_height + 2 * row) * x_width;
      const int64_t target = (plane * height + row) * width;
      pool_row(out.y.data<T>() + target, out.index.data<int32_t>() + target, upper, upper + x_width, width);
    }
  }
}

template <typename T>
void pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) {
  const int64_t height = dy.dim(-2), width = dy.dim(-1), dx_height = dx.dim(-2), dx_width = dx.dim(-1);
  const int64_t planes = dx.dim(0) * dx.dim(1);
  std::fill_n(dx.data<T>(), dx.size(), T(0.0f));
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t row = 0; row < height; ++row) {
      const int64_t source = (plane * height + row) * width;
      T* const upper = dx.data<T>() + (plane * dx_height + 2 * row) * dx_width;
      for (int64_t column = 0; column < width; ++column) {
        const int32_t which = index.data<int32_t>()[source + column];
        upper[(which >> 1) * dx_width + 2 * column + (which & 1)] = dy.data<T>()[source + column];
      }
    }
  }
}

}  // namespace

void CpuKernels::max_pool(const ops::MaxPool& out, const Tensor& x) {
  x.dtype() == Dtype::f32 ? pool<float>(out, x) : pool<bf16>(out, x);
}

void CpuKernels::max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) {
  dx.dtype() == Dtype::f32 ? pool_backward<float>(dx, dy, index) : pool_backward<bf16>(dx, dy, index);
}

}  // namespace ninefold
