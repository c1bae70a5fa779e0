// The optimizers' updates: every tensor is read and written once, in one pass.
#include <cmath>

#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// Update(i, parameter, gradient) returns the new parameter.
template <typename Gradient, typename Copy, typename Update>
struct UpdateEach {
  float* parameter;
  const Gradient* gradient;
  Copy* copy;  // nullptr where there is none
  float gradient_scale;
  Update update;

  __device__ void operator()(int64_t i) const {
    const float updated = update(i, parameter[i], static_cast<float>(gradient[i]) * gradient_scale);
    parameter[i] = updated;
    if (copy) copy[i] = Copy(updated);
  }
};

template <typename Update>
void update_each(Stream stream, const ops::UpdateTensors& tensors, Update update) {
  const Dtype copy_dtype = tensors.compute_copy.defined() ? tensors.compute_copy.dtype() : Dtype::f32;
  for_float_types(tensors.gradient.dtype(), copy_dtype, [&](auto gradient_type, auto copy_type) {
    using Gradient = decltype(gradient_type);
    using Copy = decltype(copy_type);
    for_each(stream, tensors.parameter.size(),
             UpdateEach<Gradient, Copy, Update>{
                 tensors.parameter.address<float>(), tensors.gradient.address<Gradient>(),
                 address_or_null<Copy>(tensors.compute_copy), tensors.gradient_scale, update});
  });
}

struct AdamwUpdate {
  float *first, *second;
  float step_size, inverse_root, decay, fresh1, beta2, fresh2, eps;

  __device__ float operator()(int64_t i, float parameter, float gradient) const {
    const float mean = first[i] + (gradient - first[i]) * fresh1;
    const float square = second[i] * beta2 + gradient * gradient * fresh2;
    first[i] = mean;
    second[i] = square;
    return parameter * decay - mean * step_size / (sqrtf(square) * inverse_root + eps);
  }
};

struct AdadeltaUpdate {
  float *squares, *deltas;
  float lr, rho, fresh, eps, weight_decay;

  __device__ float operator()(int64_t i, float parameter, float gradient) const {
    const float g = gradient + parameter * weight_decay;
    const float square = squares[i] * rho + g * g * fresh;
    const float delta = g * sqrtf(deltas[i] + eps) / sqrtf(square + eps);
    squares[i] = square;
    deltas[i] = deltas[i] * rho + delta * delta * fresh;
    return parameter - delta * lr;
  }
};

struct SgdUpdate {
  float* buffer;  // nullptr without momentum
  bool is_first;
  float lr, momentum, weight_decay;

  __device__ float operator()(int64_t i, float parameter, float gradient) const {
    float g = gradient + parameter * weight_decay;
    if (buffer) {
      if (!is_first) g = buffer[i] * momentum + g;
      buffer[i] = g;
    }
    return parameter - g * lr;
  }
};

}  // namespace

void GpuKernels::adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                       const ops::Adamw& settings) {
  const double steps = static_cast<double>(settings.step);
  const double correction1 = 1.0 - std::pow(static_cast<double>(settings.beta1), steps);
  const double correction2 = 1.0 - std::pow(static_cast<double>(settings.beta2), steps);
  update_each(
      stream_, update,
      AdamwUpdate{exp_avg.address<float>(), exp_avg_sq.address<float>(), static_cast<float>(settings.lr / correction1),
                  static_cast<float>(1.0 / std::sqrt(correction2)), 1.0f - settings.lr * settings.weight_decay,
                  1.0f - settings.beta1, settings.beta2, 1.0f - settings.beta2, settings.eps});
}

void GpuKernels::adadelta(const ops::UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
                          const ops::Adadelta& settings) {
  update_each(stream_, update,
              AdadeltaUpdate{square_avg.address<float>(), acc_delta.address<float>(), settings.lr, settings.rho,
                             1.0f - settings.rho, settings.eps, settings.weight_decay});
}

void GpuKernels::sgd(const ops::UpdateTensors& update, const Tensor& momentum_buffer, const ops::Sgd& settings) {
  update_each(stream_, update,
              SgdUpdate{address_or_null<float>(momentum_buffer), settings.step == 1, settings.lr, settings.momentum,
                        settings.weight_decay});
}

}  // namespace ninefold::NINEFOLD_GPU
