// The vector functions against the C library in f64, over their whole range and at its edges.
#include "common/tensor/cpu/simd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace ninefold {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

template <typename Function>
std::vector<float> values_of(Function&& function, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  simd::for_each_vector(static_cast<int64_t>(x.size()), [&](int64_t i, auto in_use) {
    simd::store(y.data() + i, function(simd::load(x.data() + i, in_use)), in_use);
  });
  return y;
}

template <typename Function>
float value_of(Function&& function, float x) {
  return values_of(function, {x})[0];
}

std::vector<float> evenly_spaced(double from, double to, int count) {
  std::vector<float> values;
  for (int i = 0; i <= count; ++i) values.push_back(static_cast<float>(from + (to - from) * i / count));
  return values;
}

// Every 997th of all floats, of both signs.
std::vector<float> all_magnitudes() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 997) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(value)) values.push_back(value);
  }
  return values;
}

// Distance in units of the last place of the f32 nearest to `exact`.
double units_off(float result, double exact) {
  const auto nearest = static_cast<float>(exact);
  if (result == nearest) return 0;
  if (!std::isfinite(nearest) || !std::isfinite(result)) return infinity;
  const double unit = std::max(std::ldexp(1.0, std::ilogb(std::abs(nearest)) - 23), 0x1p-149);
  return std::abs(static_cast<double>(result) - exact) / unit;
}

TEST(Simd, ExpIsRightToTwoUnits) {
  for (const auto& x : {evenly_spaced(-87.336, 95, 1'000'000), evenly_spaced(-1, 1, 100'000)}) {
    const std::vector<float> y = values_of(simd::exp, x);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_LE(units_off(y[i], std::exp(static_cast<double>(x[i]))), 2) << x[i];
  }
}

TEST(Simd, ExpAtTheEdges) {
  EXPECT_EQ(value_of(simd::exp, 0.0f), 1.0f);
  EXPECT_EQ(value_of(simd::exp, -infinity), 0.0f);
  EXPECT_EQ(value_of(simd::exp, -1000.0f), 0.0f);
  EXPECT_EQ(value_of(simd::exp, infinity), infinity);
  EXPECT_EQ(value_of(simd::exp, 88.73f), infinity);
  EXPECT_TRUE(std::isfinite(value_of(simd::exp, 88.72f)));
  EXPECT_GT(value_of(simd::exp, -87.336f), 0.0f);
  EXPECT_EQ(value_of(simd::exp, -87.337f), 0.0f) << "a result that is no normal number is 0";
  EXPECT_TRUE(std::isnan(value_of(simd::exp, not_a_number)));
  EXPECT_TRUE(std::isnan(value_of(simd::exp, std::bit_cast<float>(0xffffffffu))));
}

TEST(Simd, LogIsRightToTwoUnits) {
  std::vector<float> x = evenly_spaced(0.5, 2, 1'000'000);
  for (const float value : all_magnitudes()) x.push_back(std::abs(value));
  const std::vector<float> y = values_of(simd::log, x);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_LE(units_off(y[i], std::log(static_cast<double>(x[i]))), 2) << x[i];
}

TEST(Simd, LogAtTheEdges) {
  EXPECT_EQ(value_of(simd::log, 1.0f), 0.0f);
  EXPECT_EQ(value_of(simd::log, 0.0f), -infinity);
  EXPECT_EQ(value_of(simd::log, infinity), infinity);
  EXPECT_TRUE(std::isnan(value_of(simd::log, -1.0f)));
  EXPECT_TRUE(std::isnan(value_of(simd::log, -infinity)));
  EXPECT_TRUE(std::isnan(value_of(simd::log, not_a_number)));
}

TEST(Simd, SigmoidIsRightToFourUnits) {
  const std::vector<float> x = evenly_spaced(-87, 87, 1'000'000);
  const std::vector<float> y = values_of(simd::sigmoid, x);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(units_off(y[i], 1 / (1 + std::exp(-static_cast<double>(x[i])))), 4) << x[i];
  }
  EXPECT_EQ(value_of(simd::sigmoid, infinity), 1.0f);
  EXPECT_EQ(value_of(simd::sigmoid, -infinity), 0.0f);
  EXPECT_TRUE(std::isnan(value_of(simd::sigmoid, not_a_number)));
}

TEST(Simd, SquareRootIsCorrectlyRounded) {
  std::vector<float> x;
  for (const float value : all_magnitudes()) x.push_back(std::abs(value));
  const std::vector<float> y = values_of(simd::sqrt, x);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], std::sqrt(x[i]));
}

TEST(Simd, SineAndCosineInDoublePrecision) {
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> small(-4, 4), large(-1e6, 1e6);
  for (int i = 0; i < 200'000; ++i) {
    simd::Doubles x;
    for (int lane = 0; lane < simd::lanes / 2; ++lane) x[lane] = i % 2 ? small(generator) : large(generator);
    const auto [sine, cosine] = simd::sine_cosine(x);
    for (int lane = 0; lane < simd::lanes / 2; ++lane) {
      ASSERT_NEAR(sine[lane], std::sin(x[lane]), 3e-16) << x[lane];
      ASSERT_NEAR(cosine[lane], std::cos(x[lane]), 3e-16) << x[lane];
    }
  }
}

TEST(Simd, Bf16IsRoundedAsTheScalarType) {
  std::vector<float> x = all_magnitudes();
  // Ties, one step to both sides of them, and what has no neighbours.
  for (const uint32_t upper :
       {0x3f80u, 0x3f81u, 0x0000u, 0x0001u, 0x007fu, 0x807fu, 0x0080u, 0x7f7fu, 0xbf80u, 0xff7fu}) {
    for (const uint32_t lower : {0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  for (const uint32_t bits : {0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fffffffu, 0xffc00000u}) {
    x.push_back(std::bit_cast<float>(bits));
  }
  std::vector<bf16> y(x.size());
  simd::for_each_vector(static_cast<int64_t>(x.size()), [&](int64_t i, auto in_use) {
    simd::store(y.data() + i, simd::load(x.data() + i, in_use), in_use);
  });
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, bf16(x[i]).bits) << std::bit_cast<uint32_t>(x[i]);
}

TEST(Simd, EveryBf16IsWidenedExactly) {
  std::vector<bf16> x(1 << 16);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<uint16_t>(i);
  for (size_t i = 0; i < x.size(); i += simd::lanes) {
    const simd::Words bits = simd::bits_of(simd::load(x.data() + i));
    for (int lane = 0; lane < simd::lanes; ++lane) ASSERT_EQ(bits[lane], static_cast<uint32_t>(i + lane) << 16);
  }
}

TEST(Simd, MaskedTailsTouchNothingBehindTheEnd) {
  for (int n = 0; n <= 3 * simd::lanes; ++n) {
    const std::vector<float> x(static_cast<size_t>(n), 1.0f);
    std::vector<float> y(static_cast<size_t>(n) + 1, 7.0f);
    simd::for_each_vector(
        n, [&](int64_t i, auto in_use) { simd::store(y.data() + i, simd::load(x.data() + i, in_use) + 1.0f, in_use); });
    for (int i = 0; i < n; ++i) ASSERT_EQ(y[i], 2.0f);
    ASSERT_EQ(y[n], 7.0f) << n;
  }
}

TEST(Simd, AcrossLanes) {
  for (int n = 0; n < 200; ++n) {
    std::vector<float> x;
    for (int i = 0; i < n; ++i) x.push_back(static_cast<float>((i * 37) % 101 - 50));
    double expected = 0;
    for (const float value : x) expected += value;
    EXPECT_EQ(simd::sum_over_vectors(n, [&](int64_t i, auto in_use) { return simd::load(x.data() + i, in_use); }),
              expected);
  }
  simd::Floats x = simd::broadcast(-3.0f);
  for (int lane = 0; lane < simd::lanes; ++lane) {
    x[lane] = static_cast<float>(lane);
    EXPECT_EQ(simd::horizontal_max(x), static_cast<float>(lane));
    EXPECT_EQ(simd::horizontal_max(-x), lane == simd::lanes - 1 ? 0.0f : 3.0f);
  }
}

}  // namespace
}  // namespace ninefold
