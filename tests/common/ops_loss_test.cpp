// Softmax losses against f64; their gradients against finite differences in f64.
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

constexpr int64_t rows = 3;

class Loss : public testing::TestWithParam<std::tuple<Dtype, int64_t>> {
 protected:
  Dtype dtype() const { return std::get<0>(GetParam()); }
  int64_t classes() const { return std::get<1>(GetParam()); }

  Tensor random_logits() const {
    const Tensor logits = random_tensor(device_, {rows, classes()}, dtype(), 1);
    ops::scale_(logits, 10.0f);
    return logits;
  }
  Tensor targets() const {
    return Tensor::from<int32_t>(device_, {rows},
                                 {0, static_cast<int32_t>(classes() / 2), static_cast<int32_t>(classes() - 1)});
  }
  // Row by row: log(sum(exp)).
  std::vector<double> log_sum_exp(const std::vector<double>& logits) const {
    std::vector<double> result(rows, 0.0);
    for (int64_t i = 0; i < rows * classes(); ++i) result[i / classes()] += std::exp(logits[i]);
    for (double& value : result) value = std::log(value);
    return result;
  }
  std::vector<double> losses(const std::vector<double>& logits) const {
    std::vector<double> result = log_sum_exp(logits);
    const std::vector<int32_t> target = targets().to_vector<int32_t>();
    for (int64_t row = 0; row < rows; ++row) result[row] -= logits[row * classes() + target[row]];
    return result;
  }
  std::vector<double> expected_gradient(const std::vector<double>& logits, double scale) const {
    return numerical_gradient(logits, [&](const auto& x) {
      double sum = 0;
      for (const double loss : losses(x)) sum += loss;
      return scale * sum;
    });
  }

  DeviceHandle device_ = make_test_device();
};

TEST_P(Loss, CrossEntropy) {
  const Tensor logits = random_logits();
  const std::vector<double> values = doubles(logits);
  const ops::CrossEntropy result = ops::cross_entropy(logits, targets());
  EXPECT_EQ(result.losses.dtype(), Dtype::f32);
  expect_near(result.log_sum_exp, log_sum_exp(values));
  expect_near(result.losses, losses(values), 2e-6);
  ops::cross_entropy_backward_(logits, targets(), result.log_sum_exp, 0.25f);
  if (classes() <= 129) expect_near(logits, expected_gradient(values, 0.25), 2e-6);
}

// The logits cut by columns, the last parts padded with what must not count.
TEST_P(Loss, PartsOfAVocabularyMakeTheWhole) {
  const Tensor logits = random_logits();
  const std::vector<double> scores = doubles(logits), whole = log_sum_exp(scores);
  const std::vector<int32_t> target = targets().to_vector<int32_t>();
  const Tensor gradient = copy_of(logits), total = ops::cross_entropy(logits, targets()).log_sum_exp;
  ops::cross_entropy_backward_(gradient, targets(), total, 0.25f);
  for (const int64_t parts : {1, 2, 3, 4}) {
    const int64_t width = (classes() + parts - 1) / parts;
    std::vector<double> sums(rows, 0.0), target_logits(rows, 0.0);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = std::min(part * width, classes());
      const ops::VocabularyPart held{first, std::min(width, classes() - first)};
      const Tensor columns = random_tensor(device_, {rows, width}, dtype(), 2);
      ops::copy_columns_(columns, 0, logits, held.first, held.count);
      const auto result = ops::partial_cross_entropy(columns, targets(), held);
      for (int64_t row = 0; row < rows; ++row) {
        sums[row] += std::exp(doubles(result.log_sum_exp)[row]);
        target_logits[row] += doubles(result.target_logit)[row];
      }
      const Tensor expected = Tensor::zeros(device_, {rows, width}, dtype());
      ops::copy_columns_(expected, 0, gradient, held.first, held.count);
      ops::cross_entropy_backward_(columns, targets(), total, 0.25f, held);
      EXPECT_EQ(doubles(columns), doubles(expected));
    }
    for (int64_t row = 0; row < rows; ++row) {
      EXPECT_NEAR(std::log(sums[row]), whole[row], 1e-5);
      EXPECT_EQ(target_logits[row], scores[row * classes() + target[row]]);
    }
  }
}

TEST_P(Loss, LogSoftmaxAndNegativeLogLikelihood) {
  const Tensor logits = random_logits();
  const std::vector<double> values = doubles(logits), total = log_sum_exp(values);
  std::vector<double> expected = values;
  for (int64_t i = 0; i < logits.size(); ++i) expected[i] -= total[i / classes()];
  const Tensor log_probabilities = ops::log_softmax(logits);
  expect_near(log_probabilities, expected, 1.5e-6);
  const Tensor result = ops::nll(log_probabilities, targets());
  EXPECT_EQ(result.dtype(), Dtype::f32);
  expect_near(result, losses(values), 2e-6 + 2.5 * rounding_of(dtype()));
  if (classes() > 129) return;
  const Tensor dx = ops::log_softmax_nll_backward(log_probabilities, targets(), 0.25f);
  expect_near(dx, expected_gradient(values, 0.25), 2e-6 + 5 * rounding_of(dtype()));
}

TEST_P(Loss, CountCorrect) {
  const Tensor scores = random_logits();
  const std::vector<double> values = doubles(scores);
  const std::vector<int32_t> target = targets().to_vector<int32_t>();
  int64_t expected = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto begin = values.begin() + row * classes();
    expected += std::max_element(begin, begin + classes()) - begin == target[row];
  }
  EXPECT_EQ(ops::count_correct(scores, targets()), expected);
}

INSTANTIATE_TEST_SUITE_P(Sizes, Loss,
                         testing::Combine(testing::ValuesIn(float_types), testing::Values(1, 17, 129, 128'000)));

TEST(Loss, TheFirstOfEqualScoresCounts) {
  const DeviceHandle device = make_test_device();
  std::vector<float> scores(40, 1.0f);
  scores[17] = scores[30] = 2.0f;
  const Tensor x = Tensor::from(device, {1, 40}, scores);
  EXPECT_EQ(ops::count_correct(x, Tensor::from<int32_t>(device, {1}, {17})), 1);
  EXPECT_EQ(ops::count_correct(x, Tensor::from<int32_t>(device, {1}, {30})), 0);
  EXPECT_EQ(ops::count_correct(x, Tensor::from<int32_t>(device, {1}, {0})), 0);
}

TEST(Loss, LargeLogitsDoNotOverflowAndImpossibleClassesCount) {
  const DeviceHandle device = make_test_device();
  const float never = -std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::from<float>(device, {2, 3}, {1000.0f, 1000.0f, never, never, -1000.0f, never});
  const Tensor targets = Tensor::from<int32_t>(device, {2}, {1, 1});
  const ops::CrossEntropy result = ops::cross_entropy(x, targets);
  expect_near(result.losses, {std::log(2.0), 0.0}, 1e-4);
  ops::cross_entropy_backward_(x, targets, result.log_sum_exp, 1.0f);
  expect_near(x, {0.5, -0.5, 0, 0, 0, 0}, 1e-4);
}

TEST(Loss, AMaximumInALaterPieceRescalesTheEarlierOnes) {
  const DeviceHandle device = make_test_device();
  std::vector<float> logits(10'000);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i) / 1000.0f;
    sum += std::exp(static_cast<double>(logits[i]));
  }
  const Tensor x = Tensor::from(device, {1, 10'000}, logits);
  const ops::CrossEntropy result = ops::cross_entropy(x, Tensor::from<int32_t>(device, {1}, {0}));
  expect_near(result.losses, {std::log(sum)});
}

TEST(Loss, WhatIsNotANumberIsNotHidden) {
  const DeviceHandle device = make_test_device();
  for (int64_t at = 0; at < 40; ++at) {
    std::vector<float> logits(40, 1.0f);
    logits[at] = std::nanf("");
    const Tensor targets = Tensor::from<int32_t>(device, {1}, {7});
    const ops::CrossEntropy result = ops::cross_entropy(Tensor::from(device, {1, 40}, logits), targets);
    EXPECT_TRUE(std::isnan(doubles(result.losses)[0])) << at;
  }
}

TEST(Loss, OfNoRowsAndOfWrongTargets) {
  const DeviceHandle device = make_test_device();
  const Tensor logits = Tensor::empty(device, {0, 5}, Dtype::f32), none = Tensor::empty(device, {0}, Dtype::i32);
  const ops::CrossEntropy result = ops::cross_entropy(logits, none);
  EXPECT_EQ(result.losses.size(), 0);
  ops::cross_entropy_backward_(logits, none, result.log_sum_exp, 1.0f);
  EXPECT_EQ(ops::count_correct(logits, none), 0);
  EXPECT_EQ(ops::nll(ops::log_softmax(logits), none).size(), 0);
  EXPECT_EQ(ops::log_softmax_nll_backward(logits, none, 1.0f).size(), 0);

  const Tensor one = Tensor::zeros(device, {1, 5}, Dtype::f32);
  const Tensor five = Tensor::from<int32_t>(device, {1}, {5}), minus_one = Tensor::from<int32_t>(device, {1}, {-1});
  EXPECT_THROW(ops::cross_entropy(one, five).losses.to_vector<float>(), Error);
  EXPECT_THROW(ops::nll(one, minus_one).to_vector<float>(), Error);
  EXPECT_THROW(ops::cross_entropy(one, none), Error);
}

}  // namespace
}  // namespace ninefold
