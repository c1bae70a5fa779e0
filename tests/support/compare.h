// How close a result must be to one computed in f64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/numbers.h"

namespace ninefold {

// Every element within `tolerance` * max(1, |expected|) and, for bf16 and f16, half a unit of its last place more.
inline void expect_near(const Tensor& result, const std::vector<double>& expected, double tolerance = 1e-6) {
  const std::vector<double> values = doubles(result);
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double bound = tolerance * std::max(1.0, std::abs(expected[i])) + rounding_of(result.dtype(), expected[i]);
    ASSERT_NEAR(values[i], expected[i], bound) << "element " << i << " of " << values.size();
  }
}

// The gradient of a scalar function of x, by central differences in f64.
template <typename Function>
std::vector<double> numerical_gradient(std::vector<double> x, Function&& function) {
  constexpr double step = 1e-5;
  std::vector<double> gradient;
  for (double& value : x) {
    const double before = value;
    value = before + step;
    const double above = function(x);
    value = before - step;
    const double below = function(x);
    value = before;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

inline double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace ninefold
