#include "common/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

std::vector<double> rates(const CosineSchedule& schedule) {
  schedule.validate();
  std::vector<double> rates;
  for (int64_t step = 0; step < schedule.steps; ++step) rates.push_back(schedule.at(step));
  return rates;
}

void expect_rates(const CosineSchedule& schedule, const std::vector<double>& expected) {
  const std::vector<double> actual = rates(schedule);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-15) << "step " << i;
}

TEST(CosineSchedule, WarmsUpFallsAndStays) {
  const double quarter = 1 + 3 * (1 + std::sqrt(0.5)) / 2;
  const double three_quarters = 1 + 3 * (1 - std::sqrt(0.5)) / 2;
  expect_rates({.lr = 4, .min_lr = 1, .steps = 8, .warmup = 2, .constant_steps = 2},
               {2, 4, 4, quarter, 2.5, three_quarters, 1, 1});
}

TEST(CosineSchedule, WithoutWarmupBeginsAtItsPeak) { expect_rates({.lr = 2, .steps = 2}, {2, 1}); }

TEST(CosineSchedule, MayBeAllWarmup) { expect_rates({.lr = 3, .min_lr = 1, .steps = 3, .warmup = 3}, {1, 2, 3}); }

TEST(CosineSchedule, MayBeAllTail) { expect_rates({.lr = 3, .min_lr = 1, .steps = 3, .constant_steps = 3}, {1, 1, 1}); }

TEST(CosineSchedule, MayBeWarmupAndTailOnly) {
  expect_rates({.lr = 3, .min_lr = 1, .steps = 3, .warmup = 1, .constant_steps = 2}, {3, 1, 1});
}

TEST(CosineSchedule, NoStepAndOneStep) {
  expect_rates({.lr = 3, .steps = 0, .warmup = 5}, {});
  expect_rates({.lr = 3, .steps = 1}, {3});
  expect_rates({.lr = 3, .steps = 1, .warmup = 1}, {3});
  expect_rates({.lr = 3, .min_lr = 1, .steps = 1, .constant_steps = 1}, {1});
}

TEST(CosineSchedule, MinimumEqualToThePeakIsConstant) {
  expect_rates({.lr = 3, .min_lr = 3, .steps = 4}, {3, 3, 3, 3});
}

TEST(CosineSchedule, StaysAtItsFloorBeyondTheEnd) {
  const CosineSchedule schedule{.lr = 3, .min_lr = 1, .steps = 4, .warmup = 1};
  EXPECT_EQ(schedule.at(4), 1);
  EXPECT_EQ(schedule.at(1000), 1);
  EXPECT_THROW(schedule.at(-1), Error);
}

TEST(CosineSchedule, RefusesWhatDoesNotFit) {
  const auto refusal = [](const CosineSchedule& schedule) { return sentence_of([&] { schedule.validate(); }); };
  EXPECT_EQ(refusal({.lr = 1, .steps = 5, .warmup = 4, .constant_steps = 2}),
            "warmup (4) + constant-steps (2) must be at most steps (5)");
  EXPECT_EQ(refusal({.lr = 1, .min_lr = 2, .steps = 5}), "min-lr (2) must be at most lr (1)");
  EXPECT_EQ(refusal({.lr = -1, .steps = 5}), "lr (-1) and min-lr (0) must be at least 0");
  EXPECT_EQ(refusal({.lr = 1, .steps = 5, .warmup = -1}), "warmup (-1) and constant-steps (0) must be at least 0");
}

TEST(StepLr, MultipliesOnceAnEpoch) {
  EXPECT_EQ(step_lr(1, 0.7, 0), 1);
  EXPECT_EQ(step_lr(1, 0.7, 1), 0.7);
  EXPECT_DOUBLE_EQ(step_lr(2, 0.7, 3), 2 * 0.343);
}

}  // namespace
}  // namespace ninefold
