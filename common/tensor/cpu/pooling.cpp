// Largest of each 2 x 2 window, stride 2, and its backward. An odd last row or column belongs to no window.
#include <algorithm>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Floats, simd::Ints, simd::lanes;

struct EvenAndOdd {
  Floats even, odd;
};

// `count` pairs of neighbours.
template <typename T>
EvenAndOdd load_pairs(const T* from, int64_t count) {
  T pairs[2 * lanes] = {};
  std::memcpy(static_cast<void*>(pairs), from, static_cast<size_t>(2 * count) * sizeof(T));
  const Floats first = simd::load(pairs), second = simd::load(pairs + lanes);
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return EvenAndOdd{__builtin_shufflevector(first, second, (2 * i)...),
                      __builtin_shufflevector(first, second, (2 * i + 1)...)};
  }
  (std::make_integer_sequence<int, lanes>{});
}

// A NaN wins, so that it does not vanish.
inline void choose(Floats& best, Ints& which, Floats value, int32_t index) {
  const Ints larger = (value > best) | (value != value);
  best = larger ? value : best;
  which = larger ? Ints{} + index : which;
}

// One output row from two input rows. `index` is 2 * (second row) + (second column), the first of equals.
template <typename T>
void pool_row(T* y, int32_t* index, const T* upper, const T* lower, int64_t width) {
  simd::for_each_vector(width, [&](int64_t i, auto in_use) {
    const int64_t count = std::min<int64_t>(lanes, width - i);
    const EvenAndOdd above = load_pairs(upper + 2 * i, count), below = load_pairs(lower + 2 * i, count);
    Floats best = above.even;
    Ints which{};
    choose(best, which, above.odd, 1);
    choose(best, which, below.even, 2);
    choose(best, which, below.odd, 3);
    simd::store(y + i, best, in_use);
    simd::store_raw(index + i, which, in_use);
  });
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
  for_float_type(x.dtype(), [&](auto type) { pool<decltype(type)>(out, x); });
}

void CpuKernels::max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) {
  for_float_type(dx.dtype(), [&](auto type) { pool_backward<decltype(type)>(dx, dy, index); });
}

}  // namespace ninefold
