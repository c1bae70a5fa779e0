// Operations that treat every element alike: they run at the speed of memory.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

template <typename T>
__device__ float to_float(T x) {
  return static_cast<float>(x);
}

template <typename T>
struct Fill {
  T* to;
  T value;
  __device__ void operator()(int64_t i) const { to[i] = value; }
};

template <typename To, typename From>
struct Convert {
  To* to;
  const From* from;
  __device__ void operator()(int64_t i) const { to[i] = To(to_float(from[i])); }
};

// Bits of 1, 2 or 4 bytes, of columns of a matrix.
template <typename Bits>
struct CopyColumns {
  Bits* to;
  const Bits* from;
  int64_t to_width, from_width, columns;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns, column = i % columns;
    to[row * to_width + column] = from[row * from_width + column];
  }
};

template <typename Q, typename T>
struct Quantize {
  Q* to;
  const T* from;
  float scale;
  __device__ void operator()(int64_t i) const { to[i] = Q(to_float(from[i]) / scale); }
};

template <typename T, typename Q>
struct Dequantize {
  T* to;
  const Q* from;
  float scale;
  __device__ void operator()(int64_t i) const { to[i] = T(to_float(from[i]) * scale); }
};

template <typename T, typename Y>
struct Add {
  T* to;
  const T* x;
  const Y* y;
  __device__ void operator()(int64_t i) const { to[i] = T(to_float(x[i]) + to_float(y[i])); }
};

template <typename T>
struct Scale {
  T* x;
  float factor;
  __device__ void operator()(int64_t i) const { x[i] = T(to_float(x[i]) * factor); }
};

template <typename T>
struct AddBias {
  T* x;
  const T* bias;
  int64_t columns;
  __device__ void operator()(int64_t i) const { x[i] = T(to_float(x[i]) + to_float(bias[i % columns])); }
};

template <typename T>
struct ElementOf {
  const T* x;
  int64_t columns;
  __device__ float operator()(int64_t row, int64_t column) const { return to_float(x[row * columns + column]); }
};

template <typename T>
struct ExpDifference {
  T* to;
  const T *x, *y;
  __device__ void operator()(int64_t i) const { to[i] = T(expf(to_float(x[i]) - to_float(y[i]))); }
};

template <typename T>
struct LogSum {
  T* to;
  const T *shift, *sum;
  __device__ void operator()(int64_t i) const { to[i] = T(to_float(shift[i]) + logf(to_float(sum[i]))); }
};

template <typename T>
struct Relu {
  T* to;
  const T* x;
  __device__ void operator()(int64_t i) const { to[i] = to_float(x[i]) < 0.0f ? T(0.0f) : x[i]; }  // NaN stays
};

template <typename T>
struct ReluBackward {
  T* dx;
  const T *dy, *y;
  __device__ void operator()(int64_t i) const { dx[i] = to_float(y[i]) > 0.0f ? dy[i] : T(0.0f); }
};

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename T>
struct Swiglu {
  T* y;
  const T *gate, *up;
  __device__ void operator()(int64_t i) const {
    const float g = to_float(gate[i]);
    y[i] = T(g * sigmoid(g) * to_float(up[i]));
  }
};

template <typename T>
struct SwigluBackward {
  T *dgate, *dup;
  const T *dy, *gate, *up;
  __device__ void operator()(int64_t i) const {
    const float d = to_float(dy[i]), g = to_float(gate[i]), u = to_float(up[i]), s = sigmoid(g);
    dgate[i] = T(d * u * s * (1.0f + g * (1.0f - s)));
    dup[i] = T(d * g * s);
  }
};

template <typename Bits>
void copy_columns_of(Stream stream, const Tensor& destination, int64_t to_column, const Tensor& source,
                     int64_t from_column, int64_t columns) {
  for_each(stream, columns * source.dim(0),
           CopyColumns<Bits>{static_cast<Bits*>(destination.raw()) + to_column,
                             static_cast<const Bits*>(source.raw()) + from_column, destination.dim(1), source.dim(1),
                             columns});
}

}  // namespace

void GpuKernels::fill(const Tensor& x, float value) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), Fill<T>{x.address<T>(), T(value)});
  });
}

void GpuKernels::copy(const Tensor& destination, const Tensor& source) {
  if (source.size() == 0) return;
  if (destination.dtype() == source.dtype())
    return move_bytes(stream_, destination.raw(), source.raw(), source.bytes());
  for_float_types(destination.dtype(), source.dtype(), [&](auto to_type, auto from_type) {
    using To = decltype(to_type);
    using From = decltype(from_type);
    for_each(stream_, source.size(), Convert<To, From>{destination.address<To>(), source.address<From>()});
  });
}

void GpuKernels::copy_columns(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                              int64_t columns) {
  const int64_t width = size_of(source.dtype());
  const auto copy_of = width == 4   ? copy_columns_of<uint32_t>
                       : width == 2 ? copy_columns_of<uint16_t>
                                    : copy_columns_of<uint8_t>;
  copy_of(stream_, destination, to_column, source, from_column, columns);
}

void GpuKernels::quantize(const Tensor& q, const Tensor& x, float scale) {
  for_f8_type(q.dtype(), [&](auto q_type) {
    using Q = decltype(q_type);
    for_float_type(x.dtype(), [&](auto type) {
      using T = decltype(type);
      for_each(stream_, x.size(), Quantize<Q, T>{q.address<Q>(), x.address<T>(), scale});
    });
  });
}

void GpuKernels::dequantize(const Tensor& x, const Tensor& q, float scale) {
  for_f8_type(q.dtype(), [&](auto q_type) {
    using Q = decltype(q_type);
    for_float_type(x.dtype(), [&](auto type) {
      using T = decltype(type);
      for_each(stream_, x.size(), Dequantize<T, Q>{x.address<T>(), q.address<Q>(), scale});
    });
  });
}

void GpuKernels::add(const Tensor& out, const Tensor& x, const Tensor& y) {
  for_float_types(x.dtype(), y.dtype(), [&](auto type, auto y_type) {
    using T = decltype(type);
    using Y = decltype(y_type);
    for_each(stream_, x.size(), Add<T, Y>{out.address<T>(), x.address<T>(), y.address<Y>()});
  });
}

void GpuKernels::scale(const Tensor& x, float factor) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), Scale<T>{x.address<T>(), factor});
  });
}

void GpuKernels::add_bias(const Tensor& x, const Tensor& bias) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), AddBias<T>{x.address<T>(), bias.address<T>(), x.dim(1)});
  });
}

void GpuKernels::add_row_sums(const Tensor& sum, const Tensor& x) {
  for_float_types(sum.dtype(), x.dtype(), [&](auto sum_type, auto type) {
    using S = decltype(sum_type);
    using T = decltype(type);
    add_column_sums(stream_, x.device(), sum.address<S>(), x.dim(0), x.dim(1), ElementOf<T>{x.address<T>(), x.dim(1)});
  });
}

void GpuKernels::exp_difference(const Tensor& out, const Tensor& x, const Tensor& y) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), ExpDifference<T>{out.address<T>(), x.address<T>(), y.address<T>()});
  });
}

void GpuKernels::log_sum(const Tensor& out, const Tensor& shift, const Tensor& sum) {
  for_float_type(sum.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, sum.size(), LogSum<T>{out.address<T>(), shift.address<T>(), sum.address<T>()});
  });
}

void GpuKernels::relu(const Tensor& y, const Tensor& x) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, x.size(), Relu<T>{y.address<T>(), x.address<T>()});
  });
}

void GpuKernels::relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, dy.size(), ReluBackward<T>{dx.address<T>(), dy.address<T>(), y.address<T>()});
  });
}

void GpuKernels::swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) {
  for_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, y.size(), Swiglu<T>{y.address<T>(), gate.address<T>(), up.address<T>()});
  });
}

void GpuKernels::swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                                 const Tensor& up) {
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, dy.size(),
             SwigluBackward<T>{out.dgate.address<T>(), out.dup.address<T>(), dy.address<T>(), gate.address<T>(),
                               up.address<T>()});
  });
}

}  // namespace ninefold::NINEFOLD_GPU
