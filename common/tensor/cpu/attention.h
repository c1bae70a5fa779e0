// What the forward and the backward of attention share: how blocks of rows become operands of block products, and which
// queries see which keys.
#pragma once

#include <climits>

#include "common/tensor/cpu/block_product.h"
#include "common/tensor/cpu/onednn.h"
#include "common/tensor/ops.h"

namespace ninefold::attention {

// Rows are taken in panels; masked parts are skipped by half panels.
inline constexpr int64_t half_panel = 2 * simd::lanes;
inline constexpr int64_t panel = 2 * half_panel;
inline constexpr int64_t block_keys = 128;
static_assert(block_keys % panel == 0);

// The unit of the summed dimension, and how many elements it holds.
template <typename T>
using UnitOf = std::conditional_t<std::is_same_v<T, bf16>, Pair, float>;
template <typename T>
inline constexpr int64_t per_unit = std::is_same_v<T, bf16> ? 2 : 1;
template <typename T>
constexpr int64_t units(int64_t elements) {
  return (elements + per_unit<T> - 1) / per_unit<T>;
}
constexpr int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Columns of one head inside a tensor [rows, heads * head_dim].
template <typename T>
struct HeadRows {
  T* address;
  int64_t stride;  // elements from row to row

  HeadRows from(int64_t row) const { return {address + row * stride, stride}; }
};

// The head's rows of one batch element; `length` rows each.
template <typename T>
HeadRows<T> head_rows(const Tensor& x, int64_t batch, int64_t length, int64_t head, int64_t head_dim) {
  if (x.size() == 0) return {nullptr, 0};
  return {x.data<T>() + batch * length * x.dim(1) + head * head_dim, x.dim(1)};
}

// Positions of up to `panel` queries or `block_keys` keys. Past the end are queries that see nothing and keys that nobody
// sees.
template <int64_t capacity>
struct Positions {
  alignas(64) int32_t at[capacity];

  Positions(const int32_t* from, int64_t count, int32_t past_the_end) {
    std::copy_n(from, count, at);
    std::fill(at + count, at + capacity, past_the_end);
  }
  int32_t smallest(int64_t begin, int64_t end) const { return *std::min_element(at + begin, at + end); }
  int32_t largest(int64_t begin, int64_t end) const { return *std::max_element(at + begin, at + end); }
};

inline constexpr float log2_e = 1.44269504088896341f;

// 2^x for x <= 0 within 2 ulp; 0 below 2^-126 and for -infinity.
inline simd::Floats power_of_two(simd::Floats x) {
  const simd::Floats shift = simd::broadcast(12582912.0f);  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const simd::Floats bounded = simd::maximum(simd::broadcast(-126.0f), x);
  const simd::Floats shifted = bounded + shift;
  const simd::Floats r = bounded - (shifted - shift);
  simd::Floats p = r * 0.000155946778f + 0.00134066434f;
  p = p * r + 0.00961769279f;
  p = p * r + 0.0555031039f;
  p = p * r + 0.240226522f;
  p = p * r + 0.693147242f;
  p = p * r + 1.0f;
  const simd::Floats power = simd::from_bits(simd::bits_of(p) + (simd::bits_of(shifted) << 23));
  return x >= -126.0f ? power : simd::Floats{};
}

// ---- operands -----------------------------------------------------------------------------------------------------
// A head's rows as a left operand, summed over head_dim. Where pairs would reach into the next head (bf16 with an odd
// head_dim) the rows are copied to `space` [count, round_up(head_dim, 2)].
template <typename T>
LeftOperand rows_on_the_left(HeadRows<const T> rows, int64_t count, int64_t head_dim, T* space) {
  if (head_dim % per_unit<T> == 0 && rows.stride % per_unit<T> == 0) {
    return {rows.address, rows.stride / per_unit<T>, 1};
  }
  const int64_t padded = round_up(head_dim, per_unit<T>);
  for (int64_t row = 0; row < count; ++row) {
    std::copy_n(rows.address + row * rows.stride, head_dim, space + row * padded);
    std::fill(space + row * padded + head_dim, space + (row + 1) * padded, T(0.0f));
  }
  return {space, padded / per_unit<T>, 1};
}

// A word anywhere in memory.
struct [[gnu::packed]] Unaligned {
  uint32_t bits;
};

// Transposes a square of words, one row a vector: exchanges blocks off the diagonal, of 1, 2, 4, … words.
template <int step = 1>
inline void transpose(simd::Words (&x)[simd::lanes]) {
  for (int row = 0; row < simd::lanes; ++row) {
    if (row & step) continue;
    const simd::Words upper = x[row], lower = x[row + step];
    [&]<int... i>(std::integer_sequence<int, i...>) {
      x[row] = __builtin_shufflevector(upper, lower, (i & step ? simd::lanes + i - step : i)...);
      x[row + step] = __builtin_shufflevector(upper, lower, (i & step ? simd::lanes + i : i + step)...);
    }(std::make_integer_sequence<int, simd::lanes>{});
  }
  if constexpr (2 * step < simd::lanes) transpose<2 * step>(x);
}

// Rows transposed, as a right operand that is summed over head_dim: `out` [depth, panel] holds unit (k, row). Missing
// rows are zero.
template <typename Unit>
void transpose_into_panel(Unit* out, LeftOperand rows, int64_t count, int64_t depth) {
  const std::byte* const from = static_cast<const std::byte*>(rows.address);
  for (int64_t first = 0; first < panel; first += simd::lanes) {
    simd::for_each_vector(depth, [&](int64_t k, auto in_use) {
      simd::Words square[simd::lanes] = {};
      for (int64_t i = 0; i < std::min<int64_t>(simd::lanes, count - first); ++i) {
        const std::byte* const row = from + 4 * ((first + i) * rows.row_stride + k);
        square[i] = simd::load_raw<simd::Words>(reinterpret_cast<const Unaligned*>(row), in_use);
      }
      transpose(square);
      for (int64_t i = 0; i < std::min<int64_t>(simd::lanes, depth - k); ++i) {
        simd::store_raw(out + (k + i) * panel + first, square[i]);
      }
    });
  }
}

// A head's rows as a right operand that is summed over rows, `width` (head_dim rounded up to lanes) columns. f32 rows
// are used where they lie if they fill their vectors; else they are copied to `space`, which holds `count` rows.
inline RightOperand<float> rows_on_the_right(HeadRows<const float> rows, int64_t count, int64_t head_dim, int64_t width,
                                             float* space) {
  if (head_dim == width) return {rows.address, rows.stride};
  for (int64_t row = 0; row < count; ++row) {
    std::copy_n(rows.address + row * rows.stride, head_dim, space + row * width);
    std::fill(space + row * width + head_dim, space + (row + 1) * width, 0.0f);
  }
  return {space, width};
}
// Pairs take two rows each; a missing last row is zero.
inline RightOperand<Pair> rows_on_the_right(HeadRows<const bf16> rows, int64_t count, int64_t head_dim, int64_t width,
                                            Pair* space) {
  for (int64_t row = 0; row < count; row += 2) {
    const bf16* const first = rows.address + row * rows.stride;
    Pair* const to = space + row / 2 * width;
    simd::for_each_vector(head_dim, [&](int64_t i, auto in_use) {
      const simd::Halves lower = simd::load_raw<simd::Halves>(first + i, in_use);
      const simd::Halves upper =
          row + 1 < count ? simd::load_raw<simd::Halves>(first + rows.stride + i, in_use) : simd::Halves{};
      simd::store_raw(to + i, __builtin_convertvector(lower, simd::Words) |
                                  __builtin_convertvector(upper, simd::Words) << 16);
    });
  }
  return {space, width};
}

// Values of two rows that follow each other along the summed dimension, as pairs.
inline simd::Words pairs(simd::Floats first, simd::Floats second) {
  return __builtin_convertvector(simd::narrow(first), simd::Words) |
         __builtin_convertvector(simd::narrow(second), simd::Words) << 16;
}

}  // namespace ninefold::attention
