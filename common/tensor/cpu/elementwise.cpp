// Loops that treat every element alike: they run at the speed of memory.
#include <algorithm>
#include <cstring>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {

using simd::load;
using simd::store;

void CpuKernels::fill(const Tensor& x, float value) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    std::fill_n(x.data<T>(), x.size(), T(value));
  });
}

void CpuKernels::copy(const Tensor& destination, const Tensor& source) {
  if (source.size() == 0) return;
  if (destination.dtype() == source.dtype()) {
    std::memmove(destination.raw(), source.raw(), static_cast<size_t>(source.bytes()));
    return;
  }
  for_float_types(destination.dtype(), source.dtype(), [&](auto to_type, auto from_type) {
    auto* const to = destination.data<decltype(to_type)>();
    const auto* const from = source.data<decltype(from_type)>();
    simd::for_each_vector(source.size(),
                          [&](int64_t i, auto in_use) { store(to + i, load(from + i, in_use), in_use); });
  });
}

void CpuKernels::copy_columns(const Tensor& destination, int64_t to_column, const Tensor& source, int64_t from_column,
                              int64_t columns) {
  const int64_t width = size_of(source.dtype());
  auto* to = static_cast<std::byte*>(destination.raw()) + to_column * width;
  const auto* from = static_cast<const std::byte*>(source.raw()) + from_column * width;
  for (int64_t row = 0; columns > 0 && row < source.dim(0); ++row) {
    std::memcpy(to + row * destination.dim(1) * width, from + row * source.dim(1) * width,
                static_cast<size_t>(columns * width));
  }
}

void CpuKernels::quantize(const Tensor& q, const Tensor& x, float scale) {
  for_f8_type(q.dtype(), [&](auto q_type) {
    for_float_type(x.dtype(), [&](auto type) {
      auto* const to = q.data<decltype(q_type)>();
      const auto* const from = x.data<decltype(type)>();
      simd::for_each_vector(x.size(),
                            [&](int64_t i, auto in_use) { store(to + i, load(from + i, in_use) / scale, in_use); });
    });
  });
}

void CpuKernels::dequantize(const Tensor& x, const Tensor& q, float scale) {
  for_f8_type(q.dtype(), [&](auto q_type) {
    for_float_type(x.dtype(), [&](auto type) {
      auto* const to = x.data<decltype(type)>();
      const auto* const from = q.data<decltype(q_type)>();
      simd::for_each_vector(q.size(),
                            [&](int64_t i, auto in_use) { store(to + i, load(from + i, in_use) * scale, in_use); });
    });
  });
}

void CpuKernels::add(const Tensor& out, const Tensor& x, const Tensor& y) {
  for_float_types(x.dtype(), y.dtype(), [&](auto type, auto y_type) {
    using T = decltype(type);
    T* const o = out.data<T>();
    const T* const a = x.data<T>();
    const auto* const b = y.data<decltype(y_type)>();
    simd::for_each_vector(
        x.size(), [&](int64_t i, auto in_use) { store(o + i, load(a + i, in_use) + load(b + i, in_use), in_use); });
  });
}

void CpuKernels::scale(const Tensor& x, float factor) {
  for_float_type(x.dtype(), [&](auto type) {
    auto* const p = x.data<decltype(type)>();
    simd::for_each_vector(x.size(),
                          [&](int64_t i, auto in_use) { store(p + i, load(p + i, in_use) * factor, in_use); });
  });
}

void CpuKernels::add_bias(const Tensor& x, const Tensor& bias) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* const b = bias.data<T>();
    for (int64_t row = 0; row < x.dim(0); ++row) {
      T* const p = x.data<T>() + row * x.dim(1);
      simd::for_each_vector(
          x.dim(1), [&](int64_t i, auto in_use) { store(p + i, load(p + i, in_use) + load(b + i, in_use), in_use); });
    }
  });
}

void CpuKernels::add_row_sums(const Tensor& sum, const Tensor& x) {
  const int64_t features = x.dim(1);
  const Tensor partial = workspace(x.device(), features, Dtype::f32);
  float* const total = partial.data<float>();
  std::fill_n(total, features, 0.0f);
  for_float_types(sum.dtype(), x.dtype(), [&](auto sum_type, auto type) {
    const auto* const rows = x.data<decltype(type)>();
    for (int64_t row = 0; row < x.dim(0); ++row) {
      simd::for_each_vector(features, [&](int64_t i, auto in_use) {
        store(total + i, load(total + i, in_use) + load(rows + row * features + i, in_use), in_use);
      });
    }
    add_in_place(sum.data<decltype(sum_type)>(), total, features);
  });
}

void CpuKernels::exp_difference(const Tensor& out, const Tensor& x, const Tensor& y) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    simd::for_each_vector(x.size(), [&](int64_t i, auto in_use) {
      store(out.data<T>() + i, simd::exp(load(x.data<T>() + i, in_use) - load(y.data<T>() + i, in_use)), in_use);
    });
  });
}

void CpuKernels::log_sum(const Tensor& out, const Tensor& shift, const Tensor& sum) {
  for_float_type(sum.dtype(), [&](auto type) {
    using T = decltype(type);
    simd::for_each_vector(sum.size(), [&](int64_t i, auto in_use) {
      store(out.data<T>() + i, load(shift.data<T>() + i, in_use) + simd::log(load(sum.data<T>() + i, in_use)), in_use);
    });
  });
}

void CpuKernels::relu(const Tensor& y, const Tensor& x) {
  for_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* const from = x.data<T>();
    T* const to = y.data<T>();
    simd::for_each_vector(x.size(), [&](int64_t i, auto in_use) {
      store(to + i, simd::maximum(simd::broadcast(0), load(from + i, in_use)), in_use);
    });
  });
}

void CpuKernels::relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *const gradient = dy.data<T>(), *const output = y.data<T>();
    T* const to = dx.data<T>();
    simd::for_each_vector(dy.size(), [&](int64_t i, auto in_use) {
      const simd::Floats passed = load(gradient + i, in_use);
      store(to + i, load(output + i, in_use) > 0.0f ? passed : simd::broadcast(0), in_use);
    });
  });
}

void CpuKernels::swiglu(const Tensor& y, const Tensor& gate, const Tensor& up) {
  for_float_type(y.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *const gates = gate.data<T>(), *const ups = up.data<T>();
    T* const to = y.data<T>();
    simd::for_each_vector(y.size(), [&](int64_t i, auto in_use) {
      const simd::Floats g = load(gates + i, in_use);
      store(to + i, g * simd::sigmoid(g) * load(ups + i, in_use), in_use);
    });
  });
}

void CpuKernels::swiglu_backward(const ops::SwigluGradients& out, const Tensor& dy, const Tensor& gate,
                                 const Tensor& up) {
  for_float_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *const gradient = dy.data<T>(), *const gates = gate.data<T>(), *const ups = up.data<T>();
    T *const dgate = out.dgate.data<T>(), *const dup = out.dup.data<T>();
    simd::for_each_vector(dy.size(), [&](int64_t i, auto in_use) {
      const simd::Floats d = load(gradient + i, in_use), g = load(gates + i, in_use), u = load(ups + i, in_use);
      const simd::Floats s = simd::sigmoid(g);
      store(dgate + i, d * u * s * (1.0f + g * (1.0f - s)), in_use);
      store(dup + i, d * g * s, in_use);
    });
  });
}

}  // namespace ninefold
