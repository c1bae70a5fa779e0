// Derivatives of layers against central differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <string>

#include "tests/support/numbers.h"

namespace ninefold {

// sum(weights * y) in f64.
inline double projection(const Tensor& y, const Tensor& weights) {
  const auto a = doubles(y), b = doubles(weights);
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Compares <gradient, direction> with the central difference of `value` when `x` moves along the direction.
inline void expect_derivative(const Tensor& x, const Tensor& gradient, const std::function<double()>& value,
                              const std::string& what, float step = 4e-3f) {
  const Tensor direction = random_tensor(x.device(), x.shape(), Dtype::f32, 77);
  const Tensor before = ops::cast(x, Dtype::f32);
  const auto at = [&](float distance) {
    const Tensor moved = ops::cast(direction, Dtype::f32);
    ops::scale_(moved, distance);
    ops::add_(moved, before);
    ops::copy_(x, moved);
    return value();
  };
  const double coarse = (at(2 * step) - at(-2 * step)) / (4.0 * step);
  const double fine = (at(step) - at(-step)) / (2.0 * step);
  ops::copy_(x, before);
  const double numerical = (4 * fine - coarse) / 3;  // Richardson: the error of order step² cancels
  EXPECT_NEAR(projection(gradient, direction), numerical, 3e-3 * std::max(1.0, std::abs(numerical))) << what;
}

}  // namespace ninefold
