// Sums over whole tensors and the optimizers' updates, against f64 and against themselves in parts.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "tests/support/compare.h"
#include "tests/support/exact_data.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

const int64_t sizes[] = {0, 1, 17, 129, 1000};

TEST(Sum, IsInDoublePrecisionInOrder) {
  const DeviceHandle device = make_test_device();
  for (const Dtype dtype : float_types) {
    for (const int64_t n : sizes) {
      const Tensor x = random_tensor(device, {n}, dtype, 1);
      double expected = 0;
      for (const double value : doubles(x)) expected += value;
      EXPECT_EQ(ops::sum(x), expected);
    }
  }
}

TEST(SumOfSquares, AgreesWithDoublePrecision) {
  const DeviceHandle device = make_test_device();
  for (const Dtype dtype : float_types) {
    for (const int64_t n : sizes) {
      for (const float scale : {1e-8f, 1.0f, 6e4f}) {
        const Tensor x = random_tensor(device, {n}, dtype, 1);
        ops::scale_(x, scale);
        double expected = 0;
        for (const double value : doubles(x)) expected += value * value;
        const double cut = static_cast<double>(n / 16 + 1) * 0x1p-80;  // one unit of the fixed point a block
        EXPECT_NEAR(ops::sum_of_squares(x).value(), expected, 1e-13 * expected + cut);
      }
    }
  }
}

// A GPU's blocks each have a part of 2^16 elements.
TEST(Sum, OfManyElementsHasThemAll) {
  const DeviceHandle device = make_test_device();
  const int64_t n = (int64_t{1} << 17) + 17;
  const Values all = contribution(0, n);
  double sum = 0, squares = 0;
  for (const float value : all) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  for (const Dtype dtype : float_types) {
    const Tensor x = tensor_of(device, dtype, all);
    EXPECT_EQ(ops::sum(x), sum);
    EXPECT_EQ(ops::sum_of_squares(x).value(), squares);
  }
}

TEST(SumOfSquares, OrderAndPartsCannotMatter) {
  const DeviceHandle device = make_test_device();
  for (const Dtype dtype : float_types) {
    const int64_t n = 1003;
    const Tensor x = random_tensor(device, {n}, dtype, 1);
    for (int64_t i = 0; i < n; i += 7) ops::scale_(x.rows(i, i + 1), i % 2 ? 3e4f : 1e-4f);
    const ops::ExactSum whole = ops::sum_of_squares(x);
    for (const int64_t part : {16, 48, 160, 1008}) {
      ops::ExactSum forwards, backwards;
      for (int64_t i = 0; i < n; i += part) forwards += ops::sum_of_squares(x.rows(i, std::min(i + part, n)));
      for (int64_t i = (n - 1) / part * part; i >= 0; i -= part) {
        backwards += ops::sum_of_squares(x.rows(i, std::min(i + part, n)));
      }
      EXPECT_TRUE(forwards.fixed == whole.fixed && backwards.fixed == whole.fixed) << part;
    }
  }
}

TEST(SumOfSquares, WhatIsTooLargeOrNotFiniteOverflows) {
  const DeviceHandle device = make_test_device();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {infinity, -infinity, std::nanf(""), 1e20f, 5e6f}) {
    for (const int64_t at : {0, 13, 40}) {
      std::vector<float> values(41, 0.5f);
      values[at] = value;
      const ops::ExactSum sum = ops::sum_of_squares(Tensor::from(device, {41}, values));
      EXPECT_TRUE(sum.overflow) << value;
      EXPECT_EQ(sum.value(), infinity);
    }
  }
  const Tensor large = Tensor::empty(device, {112}, Dtype::f32);
  ops::fill_(large, 1e6f);
  ops::ExactSum sum = ops::sum_of_squares(large);
  EXPECT_EQ(sum.value(), 1.12e14);
  sum += sum;
  EXPECT_TRUE(sum.overflow) << "the sum of sums is watched too";
}

// The state of an update: what it reads and writes.
struct State {
  Tensor parameter, gradient, copy, first, second;
  State rows(int64_t begin, int64_t end) const {
    return {parameter.rows(begin, end), gradient.rows(begin, end), copy.defined() ? copy.rows(begin, end) : copy,
            first.rows(begin, end), second.rows(begin, end)};
  }
};

// One element in f64, as torch computes it: (parameter, gradient, first, second) -> parameter, states updated.
using Reference = std::function<double(double, double, double&, double&)>;
using Update = std::function<void(const State&)>;

constexpr float gradient_scale = 0.5f;

class Optimizer : public testing::TestWithParam<std::tuple<Dtype, int64_t>> {
 protected:
  State random_state(int64_t n, bool with_copy) const {
    const State state{random_tensor(device_, {n}, Dtype::f32, 1),
                      random_tensor(device_, {n}, std::get<0>(GetParam()), 2),
                      with_copy ? Tensor::empty(device_, {n}, copy_type()) : Tensor(),
                      random_tensor(device_, {n}, Dtype::f32, 3), random_tensor(device_, {n}, Dtype::f32, 4)};
    std::vector<float> second = state.second.to_vector<float>();
    for (float& value : second) value = std::abs(value);
    state.second.copy_from_host(second.data());
    return state;
  }

  // The type of the activations, where gradients are f32 or of that type.
  static Dtype copy_type() { return std::get<0>(GetParam()) == Dtype::f16 ? Dtype::f16 : Dtype::bf16; }

  void compare(const Update& update, const Reference& reference, bool first_is_squared) const {
    const int64_t n = std::get<1>(GetParam());
    const State state = random_state(n, true);
    if (first_is_squared) ops::copy_(state.first, state.second);
    std::vector<double> parameter = doubles(state.parameter), gradient = doubles(state.gradient);
    std::vector<double> first = doubles(state.first), second = doubles(state.second);
    for (int64_t i = 0; i < n; ++i)
      parameter[i] = reference(parameter[i], gradient[i] * gradient_scale, first[i], second[i]);
    update(state);
    expect_near(state.parameter, parameter);
    expect_near(state.first, first);
    expect_near(state.second, second);
    EXPECT_TRUE(same_bits(state.copy, ops::cast(state.parameter, copy_type())));
  }

  void split_anywhere(const Update& update) const {
    const int64_t n = 200;
    const State whole = random_state(n, true);
    update(whole);
    for (int64_t at = 0; at <= n; at += 16) {
      const State parts = random_state(n, true);
      update(parts.rows(at, n));
      update(parts.rows(0, at));
      EXPECT_TRUE(same_bits(parts.parameter, whole.parameter) && same_bits(parts.first, whole.first) &&
                  same_bits(parts.second, whole.second) && same_bits(parts.copy, whole.copy))
          << at;
    }
  }

  DeviceHandle device_ = make_test_device();
};

const ops::Adamw adamw{.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 3};
void update_adamw(const State& s) {
  ops::adamw_({s.parameter, s.gradient, s.copy, gradient_scale}, s.first, s.second, adamw);
}

TEST_P(Optimizer, Adamw) {
  compare(
      update_adamw,
      [](double p, double g, double& m, double& v) {
        p -= adamw.lr * adamw.weight_decay * p;
        m = adamw.beta1 * m + (1.0 - adamw.beta1) * g;
        v = adamw.beta2 * v + (1.0 - adamw.beta2) * g * g;
        const double correction1 = 1 - std::pow(adamw.beta1, 3), correction2 = 1 - std::pow(adamw.beta2, 3);
        return p - adamw.lr / correction1 * m / (std::sqrt(v) / std::sqrt(correction2) + adamw.eps);
      },
      false);
  split_anywhere(update_adamw);
}

const ops::Adadelta adadelta{.lr = 1.0f, .rho = 0.9f, .eps = 1e-6f, .weight_decay = 0.1f};
void update_adadelta(const State& s) {
  ops::adadelta_({s.parameter, s.gradient, s.copy, gradient_scale}, s.second, s.first, adadelta);
}

TEST_P(Optimizer, Adadelta) {
  compare(
      update_adadelta,
      [](double p, double g, double& accumulated, double& square) {
        g += adadelta.weight_decay * p;
        square = adadelta.rho * square + (1.0 - adadelta.rho) * g * g;
        const double delta = std::sqrt(accumulated + adadelta.eps) / std::sqrt(square + adadelta.eps) * g;
        accumulated = adadelta.rho * accumulated + (1.0 - adadelta.rho) * delta * delta;
        return p - adadelta.lr * delta;
      },
      true);
  split_anywhere([](const State& s) {
    ops::copy_(s.first, s.second);
    update_adadelta(s);
  });
}

TEST_P(Optimizer, Sgd) {
  for (const int64_t step : {1, 2}) {
    const ops::Sgd sgd{.lr = 0.1f, .momentum = 0.9f, .weight_decay = 0.1f, .step = step};
    const Update update = [&](const State& s) {
      ops::sgd_({s.parameter, s.gradient, s.copy, gradient_scale}, s.first, sgd);
    };
    compare(
        update,
        [&](double p, double g, double& momentum, double&) {
          g += sgd.weight_decay * p;
          momentum = step == 1 ? g : sgd.momentum * momentum + g;
          return p - sgd.lr * momentum;
        },
        false);
    split_anywhere(update);
  }
}

TEST_P(Optimizer, SgdWithoutMomentumNeedsNoBuffer) {
  const ops::Sgd sgd{.lr = 0.1f, .momentum = 0, .weight_decay = 0, .step = 2};
  compare(
      [&](const State& s) {
        ops::sgd_({s.parameter, s.gradient, s.copy, gradient_scale}, {}, sgd);
      },
      [&](double p, double g, double&, double&) { return p - sgd.lr * g; }, false);
}

TEST_P(Optimizer, TheCopyIsOptional) {
  const State with = random_state(129, true), without = random_state(129, false);
  update_adamw(with);
  update_adamw(without);
  EXPECT_TRUE(same_bits(with.parameter, without.parameter));
}

INSTANTIATE_TEST_SUITE_P(Sizes, Optimizer, testing::Combine(testing::ValuesIn(float_types), testing::ValuesIn(sizes)));

TEST(Optimizer, RefusesWhatDoesNotFit) {
  const DeviceHandle device = make_test_device();
  const Tensor x = Tensor::zeros(device, {16}, Dtype::f32), shorter = Tensor::zeros(device, {15}, Dtype::f32);
  const Tensor rounded = Tensor::zeros(device, {16}, Dtype::bf16);
  EXPECT_THROW(ops::adamw_({x, shorter, {}}, x, x, adamw), Error);
  EXPECT_THROW(ops::adamw_({x, x, {}}, x, shorter, adamw), Error);
  EXPECT_THROW(ops::adamw_({rounded, x, {}}, x, x, adamw), Error);
  EXPECT_THROW(ops::sgd_({x, x, {}}, {}, {.lr = 1, .momentum = 0.9f, .weight_decay = 0, .step = 1}), Error);
}

}  // namespace
}  // namespace ninefold
