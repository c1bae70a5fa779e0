// The optimizers' updates: every tensor is read and written once, in one pass.
#include <cmath>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"

namespace ninefold {
namespace {

using simd::Floats;
using simd::load;
using simd::store;

// Calls update(i, lanes_in_use, parameter, gradient) for every vector and stores the parameter that it returns, also
// rounded into the compute copy where there is one.
template <typename Update>
void for_each_update(const ops::UpdateTensors& tensors, Update&& update) {
  const bool has_copy = tensors.compute_copy.defined();
  const Dtype copy_dtype = has_copy ? tensors.compute_copy.dtype() : Dtype::f32;
  for_float_types(tensors.gradient.dtype(), copy_dtype, [&](auto gradient_type, auto copy_type) {
    using Copy = decltype(copy_type);
    float* const parameter = tensors.parameter.data<float>();
    const auto* const gradient = tensors.gradient.data<decltype(gradient_type)>();
    Copy* const copy = has_copy ? tensors.compute_copy.data<Copy>() : nullptr;
    simd::for_each_vector(tensors.parameter.size(), [&](int64_t i, auto in_use) {
      const Floats scaled = load(gradient + i, in_use) * tensors.gradient_scale;
      const Floats updated = update(i, in_use, load(parameter + i, in_use), scaled);
      store(parameter + i, updated, in_use);
      if (copy) store(copy + i, updated, in_use);
    });
  });
}

}  // namespace

void CpuKernels::adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                       const ops::Adamw& settings) {
  const double steps = static_cast<double>(settings.step);
  const double correction1 = 1.0 - std::pow(static_cast<double>(settings.beta1), steps);
  const double correction2 = 1.0 - std::pow(static_cast<double>(settings.beta2), steps);
  const float step_size = static_cast<float>(settings.lr / correction1);
  const float inverse_root = static_cast<float>(1.0 / std::sqrt(correction2));
  const float decay = 1.0f - settings.lr * settings.weight_decay;
  const float fresh1 = 1.0f - settings.beta1, fresh2 = 1.0f - settings.beta2, eps = settings.eps;
  float *const first = exp_avg.data<float>(), *const second = exp_avg_sq.data<float>();
  for_each_update(update, [=](int64_t i, auto in_use, Floats parameter, Floats gradient) {
    const Floats m = load(first + i, in_use), v = load(second + i, in_use);
    const Floats mean = m + (gradient - m) * fresh1;
    const Floats square = v * settings.beta2 + gradient * gradient * fresh2;
    store(first + i, mean, in_use);
    store(second + i, square, in_use);
    return parameter * decay - mean * step_size / (simd::sqrt(square) * inverse_root + eps);
  });
}

void CpuKernels::adadelta(const ops::UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
                          const ops::Adadelta& settings) {
  const float rho = settings.rho, fresh = 1.0f - settings.rho, eps = settings.eps;
  float *const squares = square_avg.data<float>(), *const deltas = acc_delta.data<float>();
  for_each_update(update, [=](int64_t i, auto in_use, Floats parameter, Floats gradient) {
    const Floats g = gradient + parameter * settings.weight_decay;
    const Floats square = load(squares + i, in_use) * rho + g * g * fresh;
    const Floats accumulated = load(deltas + i, in_use);
    const Floats delta = g * simd::sqrt(accumulated + eps) / simd::sqrt(square + eps);
    store(squares + i, square, in_use);
    store(deltas + i, accumulated * rho + delta * delta * fresh, in_use);
    return parameter - delta * settings.lr;
  });
}

void CpuKernels::sgd(const ops::UpdateTensors& update, const Tensor& momentum_buffer, const ops::Sgd& settings) {
  float* const buffer = momentum_buffer.defined() ? momentum_buffer.data<float>() : nullptr;
  const bool first = settings.step == 1;
  for_each_update(update, [=](int64_t i, auto in_use, Floats parameter, Floats gradient) {
    Floats g = gradient + parameter * settings.weight_decay;
    if (buffer) {
      if (!first) g = load(buffer + i, in_use) * settings.momentum + g;
      store(buffer + i, g, in_use);
    }
    return parameter - g * settings.lr;
  });
}

}  // namespace ninefold
