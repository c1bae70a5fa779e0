// Convolution and max-pool, forward and backward, against f64 loops.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/tensor/ops.h"
#include "tests/support/numbers.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

// Walks every (y, x, weight) triple of elements that one convolution multiplies: body(y, x, weight, out_channel).
template <typename Body>
void for_each_product(const Shape& x, const Shape& weight, const Body& body) {
  const int64_t in = x[1], height = x[2], width = x[3], out = weight[0], kernel = weight[2];
  const int64_t y_height = height - kernel + 1, y_width = width - kernel + 1;
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t row = 0; row < y_height; ++row)
        for (int64_t column = 0; column < y_width; ++column)
          for (int64_t i = 0; i < in; ++i)
            for (int64_t r = 0; r < kernel; ++r)
              for (int64_t c = 0; c < kernel; ++c)
                body(((n * out + o) * y_height + row) * y_width + column,
                     ((n * in + i) * height + row + r) * width + column + c, ((o * in + i) * kernel + r) * kernel + c,
                     o);
}

struct Example {
  Tensor x, weight, bias, dy;
};

class Convolution : public testing::TestWithParam<Dtype> {
 protected:
  Example example(const Shape& x, const Shape& weight) const {
    const Shape y = {x[0], weight[0], x[2] - weight[2] + 1, x[3] - weight[3] + 1};
    return {random_tensor(device_, x, GetParam(), 1), random_tensor(device_, weight, GetParam(), 2),
            random_tensor(device_, {weight[0]}, GetParam(), 3), random_tensor(device_, y, GetParam(), 4)};
  }

  // `products`: how many terms each element of `expected` sums; they are at most 1 in magnitude.
  void expect_near(const Tensor& actual, const std::vector<double>& expected, int64_t products) const {
    const std::vector<double> values = doubles(actual);
    ASSERT_EQ(values.size(), expected.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const double rounding = rounding_of(actual.dtype(), expected[i]);
      ASSERT_NEAR(values[i], expected[i], 1e-6 * static_cast<double>(products + 1) + rounding) << "element " << i;
    }
  }

  void compare(const Shape& x_shape, const Shape& weight_shape) {
    SCOPED_TRACE(to_string(x_shape) + " by " + to_string(weight_shape));
    const Example of = example(x_shape, weight_shape);
    const std::vector<double> x = doubles(of.x), weight = doubles(of.weight), bias = doubles(of.bias),
                              dy = doubles(of.dy);
    const Tensor dweight = random_tensor(device_, weight_shape, Dtype::f32, 5);
    const Tensor dbias = random_tensor(device_, {weight_shape[0]}, GetParam(), 6);
    std::vector<double> y(dy.size(), 0.0), dx(x.size(), 0.0), dw = doubles(dweight), db = doubles(dbias);
    for_each_product(x_shape, weight_shape, [&](int64_t at_y, int64_t at_x, int64_t at_weight, int64_t) {
      y[at_y] += x[at_x] * weight[at_weight];
      dx[at_x] += dy[at_y] * weight[at_weight];
      dw[at_weight] += dy[at_y] * x[at_x];
    });
    const int64_t plane = of.dy.dim(2) * of.dy.dim(3), channels = weight_shape[0];
    for (int64_t i = 0; i < of.dy.size(); ++i) {
      y[i] += bias[i / plane % channels];
      db[i / plane % channels] += dy[i];
    }
    expect_near(ops::convolution(of.x, of.weight, of.bias), y, of.weight.size() / channels);
    const Tensor computed = ops::convolution_backward(of.dy, of.x, of.weight, dweight, dbias, true);
    expect_near(computed, dx, of.weight.size() / weight_shape[1]);
    expect_near(dweight, dw, of.dy.size() / channels);
    expect_near(dbias, db, of.dy.size() / channels);
  }

  DeviceHandle device_ = make_test_device();
};

TEST_P(Convolution, AgreesWithDoublePrecision) {
  compare({2, 1, 28, 28}, {32, 1, 3, 3});
  const int64_t channels = test_device_is_slow() ? 4 : 32;
  compare({2, channels, 12, 12}, {2 * channels, channels, 3, 3});
  compare({1, 1, 1, 1}, {1, 1, 1, 1});
  compare({3, 5, 9, 7}, {17, 5, 5, 5});
}

TEST_P(Convolution, LeavesOutTheInputsGradientUnlessAsked) {
  const Example of = example({2, 3, 6, 6}, {4, 3, 3, 3});
  const Tensor dweight = Tensor::zeros(device_, {4, 3, 3, 3}, Dtype::f32),
               dbias = Tensor::zeros(device_, {4}, Dtype::f32);
  EXPECT_FALSE(ops::convolution_backward(of.dy, of.x, of.weight, dweight, dbias, false).defined());
  EXPECT_GT(ops::sum_of_squares(dweight).value(), 0.0);
}

TEST_P(Convolution, AcceptsAnEmptyBatch) {
  const Example of = example({0, 3, 6, 6}, {4, 3, 3, 3});
  const Tensor dweight = Tensor::zeros(device_, {4, 3, 3, 3}, Dtype::f32),
               dbias = Tensor::zeros(device_, {4}, Dtype::f32);
  EXPECT_EQ(ops::convolution(of.x, of.weight, of.bias).shape(), (Shape{0, 4, 4, 4}));
  EXPECT_EQ(ops::convolution_backward(of.dy, of.x, of.weight, dweight, dbias, true).size(), 0);
  EXPECT_EQ(ops::sum_of_squares(dweight).value(), 0.0);
  EXPECT_EQ(ops::max_pool(of.x).y.shape(), (Shape{0, 3, 3, 3}));
}

TEST_P(Convolution, GivesTheSameBitsAtAnyAlignment) {
  const Example of = example({2, 3, 9, 9}, {18, 3, 3, 3});
  const auto gradients = [&](int64_t by) {
    const Tensor dweight = shifted(Tensor::zeros(device_, {18, 3, 3, 3}, Dtype::f32), by);
    const Tensor dbias = shifted(Tensor::zeros(device_, {18}, Dtype::f32), by);
    const Tensor dx =
        ops::convolution_backward(shifted(of.dy, by), shifted(of.x, by), shifted(of.weight, by), dweight, dbias, true);
    return std::vector<Tensor>{ops::convolution(shifted(of.x, by), shifted(of.weight, by), shifted(of.bias, by)), dx,
                               dweight, dbias};
  };
  const std::vector<Tensor> expected = gradients(0);
  for (const int64_t by : test_shifts()) {
    const std::vector<Tensor> actual = gradients(by);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(same_bits(actual[i], expected[i])) << by << ", " << i;
  }
}

TEST_P(Convolution, MaxPoolKeepsTheFirstOfTheLargest) {
  const Tensor x = ops::cast(Tensor::from<float>(device_, {1, 1, 3, 5},
                                                 {1, 2, 5, 5, 9,  //
                                                  4, 3, 5, 5, 9,  //
                                                  9, 9, 9, 9, 9}),
                             GetParam());
  const ops::MaxPool pooled = ops::max_pool(x);
  EXPECT_EQ(doubles(pooled.y), (std::vector<double>{4, 5}));
  EXPECT_EQ(pooled.index.to_vector<int32_t>(), (std::vector<int32_t>{2, 0}));
  const Tensor dy = ops::cast(Tensor::from<float>(device_, {1, 1, 1, 2}, {7, 8}), GetParam());
  EXPECT_EQ(doubles(ops::max_pool_backward(dy, pooled.index, x.shape())),
            (std::vector<double>{0, 0, 8, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_P(Convolution, MaxPoolShowsNotANumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t where = 0; where < 4; ++where) {
    std::vector<float> window = {1, 2, 3, 4};
    window[where] = nan;
    const Tensor x = ops::cast(Tensor::from(device_, {1, 1, 2, 2}, window), GetParam());
    EXPECT_TRUE(std::isnan(doubles(ops::max_pool(x).y)[0])) << where;
  }
}

TEST_P(Convolution, MaxPoolAgreesWithALoop) {
  const Tensor x = random_tensor(device_, {3, 5, 24, 17}, GetParam(), 1);
  const std::vector<double> values = doubles(x), pooled = doubles(ops::max_pool(x).y);
  ASSERT_EQ(pooled.size(), size_t{3 * 5 * 12 * 8});
  for (int64_t plane = 0; plane < 15; ++plane) {
    for (int64_t row = 0; row < 12; ++row) {
      for (int64_t column = 0; column < 8; ++column) {
        const double* const at = values.data() + (plane * 24 + 2 * row) * 17 + 2 * column;
        EXPECT_EQ(pooled[(plane * 12 + row) * 8 + column], std::max({at[0], at[1], at[17], at[18]}));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Convolution, testing::ValuesIn(float_types),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace ninefold
