// The 8- and 16-bit floats against slow definitions of their own: the value of every bit pattern, and the nearest value
// of every number, for the scalar types and for the vectors.
#include "common/tensor/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/tensor/cpu/simd.h"

namespace ninefold {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Format {
  int exponent, fraction;
  double largest;
  bool has_infinity;
};
template <typename T>
constexpr Format format_of = {};
template <>
constexpr Format format_of<f16> = {5, 10, 65504, true};
template <>
constexpr Format format_of<f8_e4m3> = {4, 3, 448, false};
template <>
constexpr Format format_of<f8_e5m2> = {5, 2, 57344, true};

template <typename T>
class SmallFloats : public testing::Test {
 protected:
  static constexpr Format format = format_of<T>;
  static constexpr uint32_t sign_bit = 1u << (format.exponent + format.fraction);

  SmallFloats() {
    while (value_of(static_cast<uint32_t>(values_.size())) <= format.largest) {
      values_.push_back(value_of(static_cast<uint32_t>(values_.size())));
    }
  }

  // What the bits of a magnitude would mean if every exponent were one of numbers.
  static double value_of(uint32_t magnitude) {
    const int bias = (1 << (format.exponent - 1)) - 1;
    const int exponent = static_cast<int>(magnitude >> format.fraction);
    const double fraction = std::ldexp(magnitude & ((1u << format.fraction) - 1), -format.fraction);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  }

  // The bits of the value nearest to x, the even one of two; beyond the largest there would be one more.
  uint32_t nearest(float x) const {
    const double magnitude = std::abs(static_cast<double>(x));
    const auto above =
        static_cast<uint32_t>(std::lower_bound(values_.begin(), values_.end(), magnitude) - values_.begin());
    uint32_t bits = above;
    if (above > 0 && std::isfinite(x)) {
      const double to_lower = magnitude - values_[above - 1], to_upper = value_of(above) - magnitude;
      if (to_lower < to_upper || (to_lower == to_upper && above % 2 == 1)) bits = above - 1;
    }
    const auto count = static_cast<uint32_t>(values_.size());
    if (bits >= count) bits = format.has_infinity ? count : count - 1;
    return bits | (std::signbit(x) ? sign_bit : 0);
  }

  // Numbers at which rounding could go wrong: the values, what lies halfway between them, both neighbours of each, and
  // random ones, all with both signs.
  std::vector<float> interesting() const {
    std::vector<float> numbers = {infinity, std::numeric_limits<float>::max(), 0x1p-149f, 0x1p-126f};
    for (uint32_t i = 0; i < values_.size(); ++i) {
      for (const double value : {values_[i], (values_[i] + value_of(i + 1)) / 2, value_of(i + 1)}) {
        const auto number = static_cast<float>(value);  // exact
        for (const float x : {number, std::nextafter(number, 0.0f), std::nextafter(number, infinity)}) {
          numbers.push_back(x);
        }
      }
    }
    std::mt19937 generator(1);
    for (int i = 0; i < 1'000'000; ++i) {
      const float any = std::bit_cast<float>(static_cast<uint32_t>(generator()));
      if (std::isfinite(any)) numbers.push_back(any);
      numbers.push_back(std::ldexp(static_cast<float>(generator() >> 8), static_cast<int>(generator() % 48) - 50));
    }
    const size_t count = numbers.size();
    for (size_t i = 0; i < count; ++i) numbers.push_back(-numbers[i]);
    return numbers;
  }

  std::vector<double> values_;  // all that are finite and not negative, in order: their bits are 0, 1, …
};

using AllSmallFloats = testing::Types<f16, f8_e4m3, f8_e5m2>;
struct NameOfType {
  template <typename T>
  static std::string GetName(int) {
    return std::string(name_of(DtypeOf<T>::value));
  }
};
TYPED_TEST_SUITE(SmallFloats, AllSmallFloats, NameOfType);

template <typename T>
T with_bits(uint32_t bits) {
  T x;
  x.bits = static_cast<decltype(x.bits)>(bits);
  return x;
}

TYPED_TEST(SmallFloats, EveryBitPatternMeansItsValueAndComesBack) {
  const auto count = static_cast<uint32_t>(this->values_.size());
  for (uint32_t bits = 0; bits < 2 * this->sign_bit; ++bits) {
    const uint32_t magnitude = bits % this->sign_bit;
    const float value = static_cast<float>(with_bits<TypeParam>(bits));
    ASSERT_EQ(std::signbit(value), bits >= this->sign_bit) << bits;
    if (magnitude < count) {
      ASSERT_EQ(std::abs(value), this->values_[magnitude]) << bits;
    } else if (magnitude == count && this->format.has_infinity) {
      ASSERT_EQ(std::abs(value), infinity) << bits;
    } else {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(value)))) << bits;
      continue;
    }
    ASSERT_EQ(TypeParam(value).bits, bits);
  }
}

TYPED_TEST(SmallFloats, RoundToTheNearestAndToTheEvenOfTwo) {
  for (const float x : this->interesting()) ASSERT_EQ(uint32_t{TypeParam(x).bits}, this->nearest(x)) << x;
}

TYPED_TEST(SmallFloats, VectorsAgreeWithTheScalarType) {
  std::vector<float> x = this->interesting();
  for (const uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xffc00000u, 0x7fa12345u}) {
    x.push_back(std::bit_cast<float>(bits));
  }
  std::vector<TypeParam> packed(x.size());
  simd::for_each_vector(static_cast<int64_t>(x.size()), [&](int64_t i, auto in_use) {
    simd::store(packed.data() + i, simd::load(x.data() + i, in_use), in_use);
  });
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(uint32_t{packed[i].bits}, uint32_t{TypeParam(x[i]).bits}) << x[i];

  std::vector<TypeParam> all(2 * this->sign_bit);
  for (uint32_t bits = 0; bits < all.size(); ++bits) all[bits] = with_bits<TypeParam>(bits);
  for (uint32_t bits = 0; bits < all.size(); bits += simd::lanes) {
    const simd::Floats values = simd::load(all.data() + bits);
    for (uint32_t lane = 0; lane < simd::lanes; ++lane) {
      const auto expected = static_cast<float>(all[bits + lane]);
      ASSERT_TRUE(values[lane] == expected || (std::isnan(values[lane]) && std::isnan(expected))) << bits + lane;
    }
  }
}

TEST(SmallFloats, WhatIsTooLarge) {
  EXPECT_EQ(static_cast<float>(f16(65519.996f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(f16(65520.0f)), infinity);
  EXPECT_EQ(static_cast<float>(f16(-infinity)), -infinity);
  EXPECT_EQ(static_cast<float>(f8_e5m2(61439.996f)), 57344.0f);
  EXPECT_EQ(static_cast<float>(f8_e5m2(61440.0f)), infinity);
  EXPECT_EQ(static_cast<float>(f8_e4m3(464.0f)), 448.0f);
  EXPECT_EQ(static_cast<float>(f8_e4m3(-1e30f)), -448.0f);
  EXPECT_EQ(static_cast<float>(f8_e4m3(infinity)), 448.0f);
}

TEST(Bf16, EveryNormalNumberRoundsToTheNearest) {
  std::mt19937 generator(1);
  for (int i = 0; i < 1'000'000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(generator()));
    if (!std::isnormal(x) || std::abs(x) > 0x1.fep127f) continue;
    const double unit = std::ldexp(1.0, std::ilogb(x) - 7);
    ASSERT_EQ(static_cast<double>(static_cast<float>(bf16(x))), std::nearbyint(x / unit) * unit) << x;
  }
}

TEST(Dtype, NamesAndSizes) {
  const std::pair<Dtype, std::pair<std::string, int64_t>> all[] = {
      {Dtype::f32, {"f32", 4}}, {Dtype::bf16, {"bf16", 2}},       {Dtype::f16, {"f16", 2}},
      {Dtype::i32, {"i32", 4}}, {Dtype::f8_e4m3, {"f8_e4m3", 1}}, {Dtype::f8_e5m2, {"f8_e5m2", 1}}};
  for (const auto& [dtype, expected] : all) {
    EXPECT_EQ(name_of(dtype), expected.first);
    EXPECT_EQ(size_of(dtype), expected.second);
  }
  EXPECT_EQ(sizeof(f16), 2u);
  EXPECT_EQ(sizeof(f8_e4m3), 1u);
}

}  // namespace
}  // namespace ninefold
