// Sums over whole tensors, initialisation and the optimizers' updates.
#include <cmath>
#include <limits>

#include "common/tensor/operation.h"
#include "common/tensor/ops.h"

namespace ninefold::ops {
namespace {

void check_update(const Operation& op, const UpdateTensors& update, std::initializer_list<const Tensor*> states) {
  op.has_dtype(update.parameter, Dtype::f32);
  op.is_float(update.gradient);
  op.same_size(update.gradient, update.parameter);
  if (update.compute_copy.defined()) {
    op.same_device(update.compute_copy);
    op.is_float(update.compute_copy);
    op.same_size(update.compute_copy, update.parameter);
  }
  for (const Tensor* state : states) {
    op.has_dtype(*state, Dtype::f32);
    op.same_size(*state, update.parameter);
  }
}

}  // namespace

double sum(const Tensor& x) {
  const Operation op("sum", {&x});
  op.is_float(x);
  const double total = op.kernels().sum(x);
  op.done(static_cast<double>(x.size()), {&x});
  return total;
}

float absolute_max(const Tensor& x) {
  const Operation op("absolute_max", {&x});
  op.is_float(x);
  const float largest = op.kernels().absolute_max(x);
  op.done(static_cast<double>(x.size()), {&x});
  return largest;
}

ExactSum sum_of_squares(const Tensor& x) {
  const Operation op("sum_of_squares", {&x});
  op.is_float(x);
  const ExactSum total = op.kernels().sum_of_squares(x);
  op.done(2.0 * static_cast<double>(x.size()), {&x});
  return total;
}

ExactSum& ExactSum::operator+=(const ExactSum& other) {
  overflow = __builtin_add_overflow(fixed, other.fixed, &fixed) || overflow || other.overflow;
  return *this;
}

double ExactSum::value() const {
  if (overflow) return std::numeric_limits<double>::infinity();
  return std::ldexp(static_cast<double>(fixed), -fraction_bits);
}

void fill_random_(const Tensor& x, const Distribution& distribution, uint64_t key, int64_t first_element) {
  const Operation op("fill_random", {&x});
  op.is_float(x);
  expect(first_element >= 0, "fill_random: the first element ({}) must not be negative", first_element);
  op.kernels().fill_random(x, distribution, key, first_element);
  op.done(0, {&x});
}

void adamw_(const UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq, const Adamw& settings) {
  const Operation op("adamw", {&update.parameter, &update.gradient, &exp_avg, &exp_avg_sq});
  check_update(op, update, {&exp_avg, &exp_avg_sq});
  expect(settings.step >= 1, "adamw: steps count from 1, not {}", settings.step);
  op.kernels().adamw(update, exp_avg, exp_avg_sq, settings);
  op.done(14.0 * static_cast<double>(update.parameter.size()),
          {&update.parameter, &update.parameter, &update.gradient, &update.compute_copy, &exp_avg, &exp_avg,
           &exp_avg_sq, &exp_avg_sq});
}

void adadelta_(const UpdateTensors& update, const Tensor& square_avg, const Tensor& acc_delta,
               const Adadelta& settings) {
  const Operation op("adadelta", {&update.parameter, &update.gradient, &square_avg, &acc_delta});
  check_update(op, update, {&square_avg, &acc_delta});
  op.kernels().adadelta(update, square_avg, acc_delta, settings);
  op.done(16.0 * static_cast<double>(update.parameter.size()),
          {&update.parameter, &update.parameter, &update.gradient, &update.compute_copy, &square_avg, &square_avg,
           &acc_delta, &acc_delta});
}

void sgd_(const UpdateTensors& update, const Tensor& momentum_buffer, const Sgd& settings) {
  const Operation op("sgd", {&update.parameter, &update.gradient});
  check_update(op, update, {});
  expect(settings.step >= 1, "sgd: steps count from 1, not {}", settings.step);
  if (momentum_buffer.defined()) {
    op.same_device(momentum_buffer);
    check_update(op, update, {&momentum_buffer});
  } else {
    expect(settings.momentum == 0, "sgd: momentum ({}) needs a momentum buffer", settings.momentum);
  }
  op.kernels().sgd(update, momentum_buffer, settings);
  op.done(5.0 * static_cast<double>(update.parameter.size()),
          {&update.parameter, &update.parameter, &update.gradient, &update.compute_copy, &momentum_buffer,
           &momentum_buffer});
}

}  // namespace ninefold::ops
