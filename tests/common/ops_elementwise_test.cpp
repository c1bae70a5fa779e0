// Element-by-element operations against f64, in every type and at odd sizes.
#include <gtest/gtest.h>

#include "tests/support/compare.h"
#include "tests/support/exact_data.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

const int64_t sizes[] = {0, 1, 17, 129};

class Elementwise : public testing::TestWithParam<Dtype> {
 protected:
  Tensor random(const Shape& shape, uint32_t seed) const { return random_tensor(device_, shape, GetParam(), seed); }
  // Calls function(x) for each element.
  template <typename Function>
  static std::vector<double> each(const Tensor& x, Function&& function) {
    std::vector<double> values = doubles(x);
    for (double& value : values) value = function(value);
    return values;
  }

  DeviceHandle device_ = make_test_device();
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST_P(Elementwise, FillAndScale) {
  for (const int64_t n : sizes) {
    const Tensor x = random({n}, 1);
    const std::vector<double> expected = each(x, [](double value) { return value * 3.5; });
    ops::scale_(x, 3.5f);
    expect_near(x, expected);
    ops::fill_(x, 0.375f);
    expect_near(x, std::vector<double>(static_cast<size_t>(n), 0.375), 0);
  }
}

TEST_P(Elementwise, CopyConvertsTheType) {
  for (const int64_t n : sizes) {
    const Tensor x = random({n}, 1);
    for (const Dtype to : float_types) {
      const Tensor copy = ops::cast(x, to);
      EXPECT_EQ(copy.dtype(), to);
      expect_near(copy, doubles(x), 0);
    }
  }
  const Tensor tokens = Tensor::from<int32_t>(device_, {3}, {1, -2, 3});
  EXPECT_EQ(ops::cast(tokens, Dtype::i32).to_vector<int32_t>(), tokens.to_vector<int32_t>());
  EXPECT_THROW(ops::cast(tokens, GetParam()), Error);
}

TEST_P(Elementwise, CopiesColumns) {
  for (const int64_t count : sizes) {
    const Tensor from = random({3, count + 2}, 1), to = random({3, count + 5}, 2);
    std::vector<double> expected = doubles(to);
    for (int64_t row = 0; row < 3; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        expected[row * (count + 5) + 4 + i] = doubles(from)[row * (count + 2) + 1 + i];
      }
    }
    ops::copy_columns_(to, 4, from, 1, count);
    EXPECT_EQ(doubles(to), expected);
  }
  const Tensor narrow = random({3, 2}, 1), wide = random({3, 4}, 1);
  EXPECT_THROW(ops::copy_columns_(narrow, 0, wide, 1, 3), Error);
  EXPECT_THROW(ops::copy_columns_(narrow, 1, wide, 0, 2), Error);
  EXPECT_THROW(ops::copy_columns_(narrow, 0, random({2, 4}, 1), 0, 1), Error);
}

TEST_P(Elementwise, SumsOfExponentials) {
  for (const int64_t n : sizes) {
    const Tensor x = random({n}, 1), y = random({n}, 2);
    std::vector<double> expected = doubles(x);
    for (int64_t i = 0; i < n; ++i) expected[i] = std::exp(expected[i] - doubles(y)[i]);
    const Tensor sum = ops::exp_difference(x, y);
    expect_near(sum, expected, 1e-6);
    expected = doubles(sum);
    for (int64_t i = 0; i < n; ++i) expected[i] = doubles(x)[i] + std::log(expected[i]);
    expect_near(ops::log_sum(x, sum), expected, 1e-6);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor nothing = ops::cast(Tensor::from<float>(device_, {1}, {-infinity}), GetParam()), two = random({1}, 1);
  EXPECT_EQ(doubles(ops::exp_difference(nothing, two)), std::vector<double>{0});
}

TEST_P(Elementwise, AddAlsoBetweenTypes) {
  for (const int64_t n : sizes) {
    for (const Dtype other : float_types) {
      const Tensor x = random({n}, 1), y = random_tensor(device_, {n}, other, 2);
      std::vector<double> expected = doubles(x);
      for (int64_t i = 0; i < n; ++i) expected[i] += doubles(y)[i];
      if (other == GetParam()) expect_near(ops::add(x, y), expected);
      ops::add_(x, y);
      expect_near(x, expected);
    }
  }
}

TEST_P(Elementwise, BiasAndItsGradient) {
  for (const int64_t features : sizes) {
    const int64_t rows = 5;
    const Tensor x = random({rows, features}, 1), bias = random({features}, 2);
    std::vector<double> expected = doubles(x);
    for (int64_t i = 0; i < x.size(); ++i) expected[i] += doubles(bias)[i % features];
    ops::add_bias_(x, bias);
    expect_near(x, expected);

    for (const Dtype dtype : {GetParam(), Dtype::f32}) {
      const Tensor sum = random_tensor(device_, {features}, dtype, 3);
      std::vector<double> sums = doubles(sum);
      for (int64_t i = 0; i < x.size(); ++i) sums[i % features] += doubles(x)[i];
      ops::add_row_sums(sum, x);
      expect_near(sum, sums);
    }
  }
}

// Kernels add up some rows at a time: nothing is lost where one part ends and the next begins.
TEST_P(Elementwise, SumsOfManyRowsHaveThemAll) {
  for (const auto& [rows, features] : {std::pair<int64_t, int64_t>(33, 300), {129, 17}, {8300, 3}}) {
    const Tensor x = tensor_of(device_, GetParam(), contribution(0, rows * features), {rows, features});
    const Tensor sum = Tensor::zeros(device_, {features}, Dtype::f32);
    ops::add_row_sums(sum, x);
    std::vector<double> expected(static_cast<size_t>(features));
    for (int64_t i = 0; i < rows * features; ++i) expected[i % features] += element(0, i);
    expect_near(sum, expected, 0);
  }
}

// A GPU's kernel has a million threads at the most: they take several elements each.
TEST(ManyElements, AreAllVisited) {
  const DeviceHandle device = make_test_device();
  const int64_t n = (int64_t{1} << 20) + 1000;
  const Tensor x = Tensor::empty(device, {n}, Dtype::f32);
  ops::fill_(x, 1.5f);
  EXPECT_EQ(x.to_vector<float>(), std::vector<float>(static_cast<size_t>(n), 1.5f));
}

TEST_P(Elementwise, Relu) {
  for (const int64_t n : sizes) {
    const Tensor x = random({n}, 1), dy = random({n}, 2);
    const Tensor y = ops::relu(x);
    expect_near(y, each(x, [](double value) { return std::max(value, 0.0); }), 0);
    std::vector<double> expected = doubles(dy);
    for (int64_t i = 0; i < n; ++i) expected[i] *= doubles(x)[i] > 0;
    expect_near(ops::relu_backward(dy, y), expected, 0);
  }
}

TEST_P(Elementwise, ReluKeepsWhatIsNotANumber) {
  const Tensor x = ops::cast(Tensor::from<float>(device_, {1}, {std::nanf("")}), GetParam());
  EXPECT_TRUE(std::isnan(doubles(ops::relu(x))[0]));
}

TEST_P(Elementwise, Swiglu) {
  for (const int64_t n : sizes) {
    const Tensor gate = random({n}, 1), up = random({n}, 2), dy = random({n}, 3);
    ops::scale_(gate, 8.0f);
    const std::vector<double> g = doubles(gate), u = doubles(up), d = doubles(dy);
    const auto loss = [&](const std::vector<double>& gates, const std::vector<double>& ups) {
      double sum = 0;
      for (size_t i = 0; i < gates.size(); ++i) sum += d[i] * gates[i] * sigmoid(gates[i]) * ups[i];
      return sum;
    };
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) expected.push_back(g[i] * sigmoid(g[i]) * u[i]);
    expect_near(ops::swiglu(gate, up), expected);
    const auto [dgate, dup] = ops::swiglu_backward(dy, gate, up);
    expect_near(dgate, numerical_gradient(g, [&](const auto& x) { return loss(x, u); }), 1e-6);
    expect_near(dup, numerical_gradient(u, [&](const auto& x) { return loss(g, x); }), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Elementwise, testing::ValuesIn(float_types),
                         [](const auto& parameter) { return std::string(name_of(parameter.param)); });

}  // namespace
}  // namespace ninefold
