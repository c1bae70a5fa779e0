// Small matrix products for attention: all operands lie in the nearest caches, the result's tile stays in registers.
// The summed dimension is counted in units of four bytes: one f32, or two bf16 that are multiplied and added together.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "common/tensor/cpu/simd.h"

namespace ninefold {

// Two bf16 that follow each other along the summed dimension; the first in the lower half.
struct Pair {
  uint32_t bits = 0;
};
static_assert(sizeof(Pair) == sizeof(float));

template <typename Unit>
using UnitVector = std::conditional_t<std::is_same_v<Unit, Pair>, simd::Words, simd::Floats>;

// sum + a * b, or for pairs sum + a.first * b.first + a.second * b.second, lane by lane. The processor's own
// instruction for bf16 takes subnormal numbers for zero.
inline simd::Floats add_product(simd::Floats sum, float a, simd::Floats b) { return a * b + sum; }
#if defined(__AVX512BF16__)
inline simd::Floats add_product(simd::Floats sum, Pair a, simd::Words b) {
  return std::bit_cast<simd::Floats>(_mm512_dpbf16_ps(
      std::bit_cast<__m512>(sum), std::bit_cast<__m512bh>(simd::Words{} + a.bits), std::bit_cast<__m512bh>(b)));
}
#else
inline simd::Floats add_product(simd::Floats sum, Pair a, simd::Words b) {
  sum = std::bit_cast<float>(a.bits << 16) * simd::from_bits(b << 16) + sum;
  return std::bit_cast<float>(a.bits & 0xffff0000u) * simd::from_bits(b & 0xffff0000u) + sum;
}
#endif

// The left operand: unit (row, depth) lies 4 * (row * row_stride + depth * depth_stride) bytes after `address`, which
// need not be aligned.
struct LeftOperand {
  const void* address;
  int64_t row_stride, depth_stride;
};
// The right operand: `depth` rows of units. Rows of the result. Strides count elements.
template <typename Unit>
struct RightOperand {
  const Unit* address;
  int64_t stride;
};
struct Result {
  float* address;
  int64_t stride;
  bool accumulate;
};

namespace detail {

inline constexpr int tile_rows = 6;
inline constexpr int tile_vectors = simd::lanes == 16 ? 4 : 2;  // so that tile and operands fit into the registers

template <int rows, int vectors, typename Unit>
[[gnu::always_inline]] inline void multiply_tile(Result out, LeftOperand left, RightOperand<Unit> right,
                                                 int64_t depth) {
  const std::byte* const a = static_cast<const std::byte*>(left.address);
  simd::Floats sum[rows][vectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    UnitVector<Unit> b[vectors];
    for (int v = 0; v < vectors; ++v) {
      b[v] = simd::load_raw<UnitVector<Unit>>(right.address + k * right.stride + v * simd::lanes);
    }
    for (int row = 0; row < rows; ++row) {
      Unit value;
      std::memcpy(&value, a + 4 * (row * left.row_stride + k * left.depth_stride), sizeof value);
      for (int v = 0; v < vectors; ++v) sum[row][v] = add_product(sum[row][v], value, b[v]);
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int v = 0; v < vectors; ++v) {
      float* const target = out.address + row * out.stride + v * simd::lanes;
      simd::store(target, out.accumulate ? simd::load(target) + sum[row][v] : sum[row][v]);
    }
  }
}

template <int tile_rows, int vectors, typename Unit>
[[gnu::noinline]] void multiply_rows(Result out, LeftOperand left, RightOperand<Unit> right, int64_t rows,
                                     int64_t depth) {
  const std::byte* const a = static_cast<const std::byte*>(left.address);
  for (int64_t row = 0; row < rows; row += tile_rows) {
    multiply_tile<tile_rows, vectors>({out.address + row * out.stride, out.stride, out.accumulate},
                                      {a + 4 * row * left.row_stride, left.row_stride, left.depth_stride}, right,
                                      depth);
  }
}

// Whole tiles first, then one tile of the rows that are left.
template <int vectors, typename Unit>
void multiply_strip(Result out, LeftOperand left, RightOperand<Unit> right, int64_t rows, int64_t depth) {
  using Multiply = void (*)(Result, LeftOperand, RightOperand<Unit>, int64_t, int64_t);
  static constexpr auto rest = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Multiply, sizeof...(i)>{multiply_rows<i + 1, vectors, Unit>...};
  }
  (std::make_integer_sequence<int, tile_rows - 1>{});
  const int64_t whole = rows / tile_rows * tile_rows;
  multiply_rows<tile_rows, vectors, Unit>(out, left, right, whole, depth);
  if (whole == rows) return;
  rest[rows - whole - 1](
      {out.address + whole * out.stride, out.stride, out.accumulate},
      {static_cast<const std::byte*>(left.address) + 4 * whole * left.row_stride, left.row_stride, left.depth_stride},
      right, rows - whole, depth);
}

}  // namespace detail

// out [rows, columns] = or += left [rows, depth] · right [depth, columns]; `columns` is a multiple of simd::lanes.
// Every element is one sum in order of depth, whatever the tile.
template <typename Unit>
void multiply_block(Result out, LeftOperand left, RightOperand<Unit> right, int64_t rows, int64_t columns,
                    int64_t depth) {
  int64_t column = 0;
  const auto strip = [&](auto vectors) {
    detail::multiply_strip<vectors.value, Unit>({out.address + column, out.stride, out.accumulate}, left,
                                                {right.address + column, right.stride}, rows, depth);
    column += vectors.value * simd::lanes;
  };
  while (columns - column >= detail::tile_vectors * simd::lanes) {
    strip(std::integral_constant<int, detail::tile_vectors>{});
  }
  if (columns - column >= 2 * simd::lanes) strip(std::integral_constant<int, 2>{});
  if (columns - column >= simd::lanes) strip(std::integral_constant<int, 1>{});
}

}  // namespace ninefold
