// Convolution, stride 1, no padding: every element of a result is one sum.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// x [n, in, height, width], weight [out, in, kernel, kernel], y [n, out, y_height, y_width].
struct Extents {
  int64_t n, in, out, height, width, kernel, y_height, y_width;
};

Extents extents_of(const Tensor& x, const Tensor& weight) {
  const int64_t kernel = weight.dim(2);
  return {x.dim(0), x.dim(1), weight.dim(0), x.dim(2), x.dim(3), kernel, x.dim(2) - kernel + 1, x.dim(3) - kernel + 1};
}

template <typename T>
struct Forward {
  T* y;
  const T *x, *weight, *bias;
  Extents size;

  __device__ void operator()(int64_t i) const {
    const int64_t column = i % size.y_width, row = i / size.y_width % size.y_height;
    const int64_t out = i / size.y_width / size.y_height % size.out, n = i / size.y_width / size.y_height / size.out;
    float sum = static_cast<float>(bias[out]);
    for (int64_t in = 0; in < size.in; ++in) {
      const T* const window = x + ((n * size.in + in) * size.height + row) * size.width + column;
      const T* const weights = weight + (out * size.in + in) * size.kernel * size.kernel;
      for (int64_t at = 0; at < size.kernel * size.kernel; ++at) {
        sum += static_cast<float>(window[at / size.kernel * size.width + at % size.kernel]) *
               static_cast<float>(weights[at]);
      }
    }
    y[i] = T(sum);
  }
};

template <typename T>
struct InputGradient {
  T* dx;
  const T *dy, *weight;
  Extents size;

  __device__ void operator()(int64_t i) const {
    const int64_t column = i % size.width, row = i / size.width % size.height;
    const int64_t in = i / size.width / size.height % size.in, n = i / size.width / size.height / size.in;
    float sum = 0;
    for (int64_t out = 0; out < size.out; ++out) {
      const T* const weights = weight + (out * size.in + in) * size.kernel * size.kernel;
      for (int64_t at = 0; at < size.kernel * size.kernel; ++at) {
        const int64_t y_row = row - at / size.kernel, y_column = column - at % size.kernel;
        if (y_row < 0 || y_row >= size.y_height || y_column < 0 || y_column >= size.y_width) continue;
        sum += static_cast<float>(dy[((n * size.out + out) * size.y_height + y_row) * size.y_width + y_column]) *
               static_cast<float>(weights[at]);
      }
    }
    dx[i] = T(sum);
  }
};

// One warp a weight: over all images and places.
template <typename W, typename T>
struct WeightGradient {
  W* dweight;
  const T *dy, *x;
  Extents size;

  __device__ void operator()(int64_t i) const {
    const int64_t k_column = i % size.kernel, k_row = i / size.kernel % size.kernel;
    const int64_t in = i / size.kernel / size.kernel % size.in, out = i / size.kernel / size.kernel / size.in;
    const int64_t places = size.y_height * size.y_width;
    float sum = 0;
    for (int64_t at = threadIdx.x; at < size.n * places; at += blockDim.x) {
      const int64_t n = at / places, row = at % places / size.y_width, column = at % size.y_width;
      const int64_t x_at = ((n * size.in + in) * size.height + row + k_row) * size.width + column + k_column;
      sum += static_cast<float>(dy[(n * size.out + out) * places + at % places]) * static_cast<float>(x[x_at]);
    }
    sum = sum_over_block(sum);
    if (threadIdx.x == 0) dweight[i] = W(static_cast<float>(dweight[i]) + sum);
  }
};

// One block a channel.
template <typename W, typename T>
struct BiasGradient {
  W* dbias;
  const T* dy;
  Extents size;

  __device__ void operator()(int64_t out) const {
    const int64_t places = size.y_height * size.y_width;
    float sum = 0;
    for (int64_t at = threadIdx.x; at < size.n * places; at += blockDim.x) {
      sum += static_cast<float>(dy[(at / places * size.out + out) * places + at % places]);
    }
    sum = sum_over_block(sum);
    if (threadIdx.x == 0) dbias[out] = W(static_cast<float>(dbias[out]) + sum);
  }
};

}  // namespace

void GpuKernels::convolution(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, y.size(),
             Forward<T>{y.address<T>(), x.address<T>(), weight.address<T>(), bias.address<T>(), extents_of(x, weight)});
  });
}

void GpuKernels::convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                                      const Tensor& dweight, const Tensor& dbias) {
  const Extents size = extents_of(x, weight);
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_float_type(dweight.dtype(), [&](auto weight_type) {
      using W = decltype(weight_type);
      for_each_row(stream_, weight.size(),
                   WeightGradient<W, T>{dweight.address<W>(), dy.address<T>(), x.address<T>(), size}, warp_threads);
    });
    for_float_type(dbias.dtype(), [&](auto bias_type) {
      using W = decltype(bias_type);
      for_each_row(stream_, size.out, BiasGradient<W, T>{dbias.address<W>(), dy.address<T>(), size});
    });
    if (!dx.defined()) return;
    for_each(stream_, dx.size(), InputGradient<T>{dx.address<T>(), dy.address<T>(), weight.address<T>(), size});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
