// Largest of each 2 x 2 window, stride 2, and its backward. An odd last row or column belongs to no window.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

template <typename T>
struct Pool {
  T* y;
  int32_t* index;
  const T* x;
  int64_t height, width, x_height, x_width;

  // A NaN wins, so that it does not vanish.
  __device__ void operator()(int64_t i) const {
    const int64_t column = i % width, row = i / width % height, plane = i / width / height;
    const T* const window = x + (plane * x_height + 2 * row) * x_width + 2 * column;
    T best = window[0];
    int32_t which = 0;
    for (int32_t other = 1; other < 4; ++other) {
      const T value = window[(other >> 1) * x_width + (other & 1)];
      const float number = static_cast<float>(value);
      if (!(number > static_cast<float>(best)) && number == number) continue;
      best = value;
      which = other;
    }
    y[i] = best;
    index[i] = which;
  }
};

// Every element of dx asks its window.
template <typename T>
struct PoolBackward {
  T* dx;
  const T* dy;
  const int32_t* index;
  int64_t height, width, dx_height, dx_width;

  __device__ void operator()(int64_t i) const {
    const int64_t column = i % dx_width, row = i / dx_width % dx_height, plane = i / dx_width / dx_height;
    const int64_t window = (plane * height + row / 2) * width + column / 2;
    const bool is_in_window = row / 2 < height && column / 2 < width;
    dx[i] = is_in_window && index[window] == 2 * (row % 2) + column % 2 ? dy[window] : T(0.0f);
  }
};

}  // namespace

void GpuKernels::max_pool(const ops::MaxPool& out, const Tensor& x) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, out.y.size(),
             Pool<T>{out.y.address<T>(), out.index.address<int32_t>(), x.address<T>(), out.y.dim(-2), out.y.dim(-1),
                     x.dim(-2), x.dim(-1)});
  });
}

void GpuKernels::max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) {
  for_float_type(dx.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, dx.size(),
             PoolBackward<T>{dx.address<T>(), dy.address<T>(), index.address<int32_t>(), dy.dim(-2), dy.dim(-1),
                             dx.dim(-2), dx.dim(-1)});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
