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

// The unit of the summed dimension, and how many elements it holds. f16 is multiplied as f32.
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

// Positions of a panel of queries or a block of keys. Past the end are queries that see nothing and keys that nobody
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
// The operands are copies: in a tensor, the rows of one head lie a power of two apart and would evict each other from
// the caches.

// `to` [head_dim] = a row, as f32.
template <typename T>
void copy_row(float* to, const T* row, int64_t head_dim) {
  simd::for_each_vector(head_dim,
                        [&](int64_t i, auto in_use) { simd::store(to + i, simd::load(row + i, in_use), in_use); });
}
// As pairs; the second half of the last may be missing, and is zero.
inline void copy_row(Pair* to, const bf16* row, int64_t head_dim) {
  to[units<bf16>(head_dim) - 1] = {};
  std::memcpy(static_cast<void*>(to), row, static_cast<size_t>(head_dim) * sizeof(bf16));
}

// A head's rows as a left operand that is summed over head_dim; `space` holds `count` rows of whole units.
template <typename T>
LeftOperand rows_on_the_left(HeadRows<const T> rows, int64_t count, int64_t head_dim, UnitOf<T>* space) {
  const int64_t depth = units<T>(head_dim);
  for (int64_t row = 0; row < count; ++row) copy_row(space + row * depth, rows.address + row * rows.stride, head_dim);
  return {space, depth, 1};
}

// Transposes a square of words, one row a vector: exchanges blocks off the diagonal, of 1, 2, 4, … words.
template <int step = 1>
inline void transpose(simd::Words (&x)[simd::lanes]) {
  for (int row = 0; row < simd::lanes; ++row) {
    if (row & step) continue;
    const simd::Words upper = x[row], lower = x[row + step];
    [&]<int... i>(std::integer_sequence<int, i...>) {
      x[row] = __builtin_shufflevector(upper, lower, (i & step ? simd::lanes + i - step : i)...);
      x[row + step] = __builtin_shufflevector(upper, lower, (i & step ? simd::lanes + i : i + step)...);
    }
    (std::make_integer_sequence<int, simd::lanes>{});
  }
  if constexpr (2 * step < simd::lanes) transpose<2 * step>(x);
}

// The same rows transposed, as a right operand: `out` [depth, panel] holds unit (k, row). Missing rows are zero.
template <typename Unit>
void transpose_into_panel(Unit* out, LeftOperand rows, int64_t count, int64_t depth) {
  for (int64_t first = 0; first < panel; first += simd::lanes) {
    simd::for_each_vector(depth, [&](int64_t k, auto in_use) {
      simd::Words square[simd::lanes] = {};
      for (int64_t i = 0; i < std::min<int64_t>(simd::lanes, count - first); ++i) {
        const Unit* const row = static_cast<const Unit*>(rows.address) + (first + i) * rows.row_stride;
        square[i] = simd::load_raw<simd::Words>(row + k, in_use);
      }
      transpose(square);
      for (int64_t i = 0; i < std::min<int64_t>(simd::lanes, depth - k); ++i) {
        simd::store_raw(out + (k + i) * panel + first, square[i]);
      }
    });
  }
}

// A head's rows as a right operand that is summed over rows: `width` (head_dim rounded up to lanes) columns. Pairs take
// two rows each; a missing last row is zero. `space` holds `count` rows.
template <typename T>
RightOperand<float> rows_on_the_right(HeadRows<const T> rows, int64_t count, int64_t head_dim, int64_t width,
                                      float* space) {
  for (int64_t row = 0; row < count; ++row) {
    simd::for_each_vector(head_dim, [&](int64_t i, auto in_use) {
      simd::store(space + row * width + i, simd::load(rows.address + row * rows.stride + i, in_use));
    });
  }
  return {space, width};
}
inline simd::Words interleave(simd::Halves first, simd::Halves second) {
  return __builtin_convertvector(first, simd::Words) | __builtin_convertvector(second, simd::Words) << 16;
}
inline RightOperand<Pair> rows_on_the_right(HeadRows<const bf16> rows, int64_t count, int64_t head_dim, int64_t width,
                                            Pair* space) {
  for (int64_t row = 0; row < count; row += 2) {
    const bf16* const first = rows.address + row * rows.stride;
    simd::for_each_vector(head_dim, [&](int64_t i, auto in_use) {
      simd::Halves second{};
      if (row + 1 < count) second = simd::load_raw<simd::Halves>(first + rows.stride + i, in_use);
      simd::store_raw(space + row / 2 * width + i, interleave(simd::load_raw<simd::Halves>(first + i, in_use), second));
    });
  }
  return {space, width};
}

}  // namespace ninefold::attention
