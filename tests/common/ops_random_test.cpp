// Random numbers by global index: against Random123, against their distribution, and the same in every layout.
#include <Random123/philox.h>
#include <gtest/gtest.h>

#include <functional>
#include <numbers>
#include <set>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

using ops::Distribution;
using ops::DropoutKey;
using Kind = ops::Distribution::Kind;

constexpr uint64_t key = 0x0123456789abcdef;

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint64_t with) {
  const auto low = static_cast<uint32_t>(with), high = static_cast<uint32_t>(with >> 32);
  const r123::Philox4x32::ctr_type words =
      r123::Philox4x32()({{counter[0], counter[1], counter[2], counter[3]}}, {{low, high}});
  return {words[0], words[1], words[2], words[3]};
}

// In (0, 1), for element i of a tensor.
double unit(uint64_t i) {
  const uint64_t group = i / 4;
  return (philox({static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0}, key)[i % 4] + 0.5) * 0x1p-32;
}

double normal(uint64_t i) {
  const double radius = std::sqrt(-2 * std::log(unit(i / 2 * 2))), angle = 2 * std::numbers::pi * unit(i / 2 * 2 + 1);
  return radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

Tensor drawn(const DeviceHandle& device, const Distribution& distribution, int64_t first, int64_t n, Dtype dtype) {
  Tensor x = Tensor::empty(device, {n}, dtype);
  ops::fill_random_(x, distribution, key, first);
  return x;
}

TEST(FillRandom, IsPhiloxOfTheElementsIndex) {
  const DeviceHandle device = make_test_device();
  for (const int64_t first : {int64_t{0}, int64_t{5}, (int64_t{1} << 34) - 7}) {
    std::vector<double> uniform, gaussian;
    for (int64_t i = 0; i < 129; ++i) {
      uniform.push_back(0.5 + 2 * (2 * unit(first + i) - 1));
      gaussian.push_back(1 + 0.02 * normal(first + i));
    }
    for (const Dtype dtype : float_types) {
      expect_near(drawn(device, {Kind::uniform, 0.5, 2}, first, 129, dtype), uniform, 3e-7);
      expect_near(drawn(device, {Kind::normal, 1, 0.02}, first, 129, dtype), gaussian, 3e-7);
    }
  }
  expect_near(drawn(device, {Kind::constant, 3, 0}, 0, 17, Dtype::bf16), std::vector<double>(17, 3.0), 0);
}

TEST(FillRandom, AnElementHasTheSameBitsInEveryRange) {
  const DeviceHandle device = make_test_device();
  for (const Kind kind : {Kind::uniform, Kind::normal}) {
    const Distribution distribution{kind, 0.25, 1.5};
    for (const Dtype dtype : float_types) {
      const Tensor whole = drawn(device, distribution, 0, 300, dtype);
      for (const int64_t first : {0, 1, 2, 3, 15, 16, 33, 150}) {
        for (const int64_t n : {0, 1, 2, 3, 17, 129, 150}) {
          EXPECT_TRUE(same_bits(drawn(device, distribution, first, n, dtype), whole.rows(first, first + n)));
        }
      }
    }
  }
}

TEST(FillRandom, HasTheMomentsOfItsDistribution) {
  const DeviceHandle device = make_test_device();
  const int64_t n = 1 << 20;
  const std::vector<double> x = doubles(drawn(device, {Kind::normal, 0, 1}, 0, n, Dtype::f32));
  double mean = 0, square = 0, fourth = 0, neighbours = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    mean += x[i] / n;
    square += x[i] * x[i] / n;
    fourth += std::pow(x[i], 4) / n;
    neighbours += x[i] * x[i ^ 1] / n;
  }
  EXPECT_NEAR(mean, 0, 0.005);
  EXPECT_NEAR(square, 1, 0.01);
  EXPECT_NEAR(fourth, 3, 0.06);
  EXPECT_NEAR(neighbours, 0, 0.005);
}

class Dropout : public testing::Test {
 protected:
  // Which of `features` elements of one row survive.
  std::vector<bool> mask(const DropoutKey& of, int64_t features = 256) const {
    const Tensor ones = Tensor::empty(device_, {1, features}, Dtype::f32);
    ops::fill_(ones, 1.0f);
    std::vector<bool> kept;
    for (const double value : doubles(ops::dropout(ones, 0.5f, of))) kept.push_back(value != 0);
    return kept;
  }

  DeviceHandle device_ = make_test_device();
};

TEST_F(Dropout, IsPhiloxOfGlobalIndices) {
  const DropoutKey of{.seed = key, .step = 5, .layer = 3, .first_sample = 9, .rows_per_sample = 2};
  const auto stream = philox({5, 0, 3, 0}, key);
  const Tensor x = random_tensor(device_, {4, 129}, Dtype::f32, 1);
  const std::vector<double> before = doubles(x), after = doubles(ops::dropout(x, 0.25f, of));
  for (uint32_t row = 0; row < 4; ++row) {
    for (uint32_t i = 0; i < 129; ++i) {
      const auto words = philox({i / 4, 0, row % 2, 9 + row / 2}, stream[0] | uint64_t{stream[1]} << 32);
      const size_t at = row * 129 + i;
      ASSERT_NEAR(after[at], words[i % 4] >= 0x40000000u ? before[at] / 0.75 : 0.0, 1e-6);
    }
  }
}

TEST_F(Dropout, EveryFieldOfTheKeyChangesTheMask) {
  const DropoutKey base{.seed = 1, .step = 2, .layer = 3, .first_sample = 4, .rows_per_sample = 1};
  std::set<std::vector<bool>> masks = {mask(base)};
  const auto with = [&](const std::function<void(DropoutKey&)>& change) {
    DropoutKey changed = base;
    change(changed);
    return mask(changed);
  };
  masks.insert(with([](DropoutKey& k) { k.seed = 2; }));
  masks.insert(with([](DropoutKey& k) { k.seed += uint64_t{1} << 32; }));
  masks.insert(with([](DropoutKey& k) { k.step = 3; }));
  masks.insert(with([](DropoutKey& k) { k.layer = 2; }));
  masks.insert(with([](DropoutKey& k) { k.first_sample = 3; }));
  masks.insert(with([](DropoutKey& k) { std::swap(k.step, k.layer); }));
  EXPECT_EQ(masks.size(), 7u);
  EXPECT_EQ(mask(base), mask(base));
}

TEST_F(Dropout, DoesNotDependOnHowRowsAreGrouped) {
  for (const Dtype dtype : float_types) {
    const Tensor x = random_tensor(device_, {6, 33}, dtype, 1);
    const Tensor whole = ops::dropout(x, 0.3f, {.seed = 1, .first_sample = 10, .rows_per_sample = 2});
    for (int64_t sample = 0; sample < 3; ++sample) {
      const DropoutKey of{.seed = 1, .first_sample = 10 + sample, .rows_per_sample = 2};
      const Tensor part = ops::dropout(x.rows(2 * sample, 2 * sample + 2), 0.3f, of);
      EXPECT_TRUE(same_bits(part, whole.rows(2 * sample, 2 * sample + 2)));
    }
  }
}

TEST_F(Dropout, DropsItsShareAndKeepsTheRestScaled) {
  const Tensor ones = Tensor::empty(device_, {1000, 1000}, Dtype::f32);
  ops::fill_(ones, 1.0f);
  int64_t dropped = 0;
  for (const double value : doubles(ops::dropout(ones, 0.2f, {.seed = 7}))) {
    dropped += value == 0;
    ASSERT_TRUE(value == 0 || value == 1.25);
  }
  EXPECT_NEAR(static_cast<double>(dropped) / 1e6, 0.2, 0.002);
}

TEST_F(Dropout, AtItsEdges) {
  const Tensor x = random_tensor(device_, {3, 17}, Dtype::f32, 1);
  EXPECT_TRUE(same_bits(ops::dropout(x, 0, {}), x));
  EXPECT_EQ(ops::dropout(x.rows(1, 1), 0.5f, {}).size(), 0);
  EXPECT_EQ(ops::dropout(Tensor::empty(device_, {3, 0}, Dtype::f32), 0.5f, {}).size(), 0);
  EXPECT_THROW(ops::dropout(x, 1.0f, {}), Error);
  EXPECT_THROW(ops::dropout(x, -0.1f, {}), Error);
}

}  // namespace
}  // namespace ninefold
