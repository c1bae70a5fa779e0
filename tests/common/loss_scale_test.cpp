// The rules of torch.amp.GradScaler, step by step.
#include "common/optim/loss_scale.h"

#include <gtest/gtest.h>

#include <limits>

namespace ninefold {
namespace {

std::vector<double> scales_after(LossScaler scaler, const std::vector<bool>& overflows) {
  std::vector<double> scales;
  for (const bool overflow : overflows) {
    scaler.update(overflow);
    scales.push_back(scaler.scale());
  }
  return scales;
}

TEST(LossScaler, GrowsAfterSoManyGoodStepsAndBacksOffAtOnce) {
  const LossScaler scaler({.init_scale = 1024, .growth_interval = 3}, true);
  EXPECT_EQ(scales_after(scaler, {false, false, false, false, true, false, false, false, true, true}),
            (std::vector<double>{1024, 1024, 2048, 2048, 1024, 1024, 1024, 2048, 1024, 512}));
}

TEST(LossScaler, BeginsAsTorchDoes) {
  LossScaler scaler({}, true);
  EXPECT_EQ(scaler.scale(), 65536);
  for (int step = 0; step < 1999; ++step) scaler.update(false);
  EXPECT_EQ(scaler.scale(), 65536);
  scaler.update(false);
  EXPECT_EQ(scaler.scale(), 131072);
}

TEST(LossScaler, StaysAnF32) {
  const LossScaler scaler({.init_scale = 0x1p127, .growth_interval = 1}, true);
  EXPECT_EQ(scales_after(scaler, {false, false}), (std::vector<double>{0x1p127, 0x1p127}));
}

TEST(LossScaler, DoesNothingWhereNothingIsScaled) {
  const double infinity = std::numeric_limits<double>::infinity();
  const LossScaler scaler({}, false);
  EXPECT_FALSE(scaler.overflows(infinity));
  EXPECT_EQ(scales_after(scaler, {true, false}), (std::vector<double>{1, 1}));
  EXPECT_TRUE(LossScaler({}, true).overflows(infinity));
  EXPECT_TRUE(LossScaler({}, true).overflows(std::nan("")));
  EXPECT_FALSE(LossScaler({}, true).overflows(1e30));
}

}  // namespace
}  // namespace ninefold
