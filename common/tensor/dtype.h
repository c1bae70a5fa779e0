// Element types. bf16 is the upper half of an f32: the same range, 8 bits of precision.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace ninefold {

enum class Dtype { f32, bf16, i32 };

// Bytes of one element.
constexpr int64_t size_of(Dtype dtype) { return dtype == Dtype::bf16 ? 2 : 4; }

constexpr std::string_view name_of(Dtype dtype) {
  return dtype == Dtype::f32 ? "f32" : dtype == Dtype::bf16 ? "bf16" : "i32";
}

// Storage only: arithmetic happens in f32. Conversion from f32 rounds to nearest, ties to even; NaN stays NaN; numbers
// below the smallest normal one, 2^-126, become zero, as the processors' own conversions do it.
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
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::i32;
};

}  // namespace ninefold
