// Element types. Numbers of 16 and 8 bits are for storage only: arithmetic happens in f32. All conversions from f32
// round to nearest, ties to even, and NaN stays NaN.
//
//              bits: sign, exponent, fraction   smallest normal   largest   beyond the largest
//   bf16       1, 8, 7: the upper half of f32   2^-126            3.4e38    infinity
//   f16        1, 5, 10: IEEE binary16          2^-14             65504     infinity
//   f8_e4m3    1, 4, 3                          2^-6              448       +-448: it has no infinity
//   f8_e5m2    1, 5, 2: the upper half of f16   2^-14             57344     infinity
//
// The 8-bit types are those of the Open Compute Project ("OCP 8-bit Floating Point Specification" 1.0, 2023); e4m3 is
// called "fn" elsewhere. Their smaller range needs a scale: ops::quantize.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace ninefold {

enum class Dtype { f32, bf16, f16, i32, f8_e4m3, f8_e5m2 };

// Bytes of one element.
constexpr int64_t size_of(Dtype dtype) {
  if (dtype == Dtype::f32 || dtype == Dtype::i32) return 4;
  return dtype == Dtype::bf16 || dtype == Dtype::f16 ? 2 : 1;
}

constexpr std::string_view name_of(Dtype dtype) {
  constexpr std::string_view names[] = {"f32", "bf16", "f16", "i32", "f8_e4m3", "f8_e5m2"};
  return names[static_cast<int>(dtype)];
}

// Whether operations compute with the type. The 8-bit types are only quantised and dequantised.
constexpr bool is_float(Dtype dtype) { return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16; }

// Numbers below the smallest normal one become zero, as the processors' own conversions do it.
struct bf16 {
  uint16_t bits = 0;

  constexpr bf16() = default;
  constexpr explicit bf16(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    const uint32_t magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
      bits = static_cast<uint16_t>((word >> 16) | 0x40u);  // NaN
    } else if (magnitude < 0x00800000u) {
      bits = static_cast<uint16_t>((word >> 16) & 0x8000u);
    } else {
      bits = static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
    }
  }
  constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  friend constexpr bool operator==(bf16 a, bf16 b) { return a.bits == b.bits; }
};

// A float of 8 or 16 bits in which numbers below the smallest normal one exist, and how its bits are made. Words are
// uint32_t and Float is float, or vectors of them.
template <int exponent, int fraction, bool infinite>
struct SmallFloat {
  using Bits = std::conditional_t<exponent + fraction == 15, uint16_t, uint8_t>;
  Bits bits = 0;

  constexpr SmallFloat() = default;
  constexpr explicit SmallFloat(float value) : bits(static_cast<Bits>(encoded<uint32_t>(value))) {}
  constexpr explicit operator float() const { return decoded<float>(uint32_t{bits}); }
  friend constexpr bool operator==(SmallFloat a, SmallFloat b) { return a.bits == b.bits; }

  template <typename Words, typename Float>
  static constexpr Words encoded(Float value) {
    const Words word = std::bit_cast<Words>(value), magnitude = word & 0x7fffffffu;
    const Words normal = ((magnitude + (half - 1u) + ((magnitude >> shift) & 1u)) >> shift) - (rebias << fraction);
    // Adding a number whose last place is that of the small ones rounds to it, and leaves their count in the low bits.
    const Words count = std::bit_cast<Words>(std::bit_cast<Float>(magnitude) + std::bit_cast<float>(rounder)) - rounder;
    Words bits = magnitude < smallest_normal ? count : normal;
    bits = bits > limit ? Words{} + limit : bits;
    const Words nan = (infinite ? (magnitude >> shift) & ((1u << fraction) - 1) : Words{}) | quiet_nan;
    bits = magnitude > 0x7f800000u ? nan : bits;
    return bits | ((word ^ magnitude) >> (31 - exponent - fraction));
  }

  template <typename Float, typename Words>
  static constexpr Float decoded(Words bits) {
    const Words magnitude = bits & ((1u << (exponent + fraction)) - 1);
    const Words normal = (magnitude << shift) + (rebias << 23);
    // Given the exponent of the smallest normal number, a small one is too large by just that number.
    const Float small = std::bit_cast<Float>(normal + (1u << 23)) - std::bit_cast<float>(smallest_normal);
    Words word = magnitude < (1u << fraction) ? std::bit_cast<Words>(small) : normal;
    word = magnitude > largest ? normal | 0x7f800000u : word;  // infinity, NaN
    return std::bit_cast<Float>(word | (bits ^ magnitude) << (31 - exponent - fraction));
  }

 private:
  static constexpr uint32_t exponent_mask = ((1u << exponent) - 1) << fraction;
  static constexpr uint32_t largest = infinite ? exponent_mask - 1 : exponent_mask + (1u << fraction) - 2;
  static constexpr uint32_t limit = infinite ? exponent_mask : largest;  // what is too large becomes this
  static constexpr uint32_t quiet_nan = exponent_mask | (infinite ? 1u << (fraction - 1) : (1u << fraction) - 1);
  static constexpr int shift = 23 - fraction;
  static constexpr uint32_t half = 1u << (shift - 1);                     // of the last place
  static constexpr uint32_t rebias = 127 - ((1u << (exponent - 1)) - 1);  // f32's exponents less ours
  static constexpr uint32_t smallest_normal = (rebias + 1) << 23;         // as f32
  static constexpr uint32_t rounder = (rebias + 1 + static_cast<uint32_t>(shift)) << 23;
};

using f16 = SmallFloat<5, 10, true>;
using f8_e4m3 = SmallFloat<4, 3, false>;
using f8_e5m2 = SmallFloat<5, 2, true>;

template <typename T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::f32;
};
template <>
struct DtypeOf<bf16> {
  static constexpr Dtype value = Dtype::bf16;
};
template <>
struct DtypeOf<f16> {
  static constexpr Dtype value = Dtype::f16;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::i32;
};
template <>
struct DtypeOf<f8_e4m3> {
  static constexpr Dtype value = Dtype::f8_e4m3;
};
template <>
struct DtypeOf<f8_e5m2> {
  static constexpr Dtype value = Dtype::f8_e5m2;
};

}  // namespace ninefold
