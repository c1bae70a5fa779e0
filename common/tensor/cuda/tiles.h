// Products of tiles in shared memory, by one warp: 16 rows at a time, on tensor cores where the type has them.
#pragma once

#include <gpu.h>           // of device/ or of fibres/
#include <warp_product.h>  // likewise

#include "common/tensor/storage_type.h"

namespace ninefold::NINEFOLD_GPU {

// 16 rows of 8 * tiles columns, spread over the lanes of a warp as tensor cores leave their results.
template <int tiles>
struct Accumulator {
  float at[tiles][4] = {};

  // Where a lane's element at[tile][i] belongs.
  static __device__ int row(int i) { return static_cast<int>(threadIdx.x) % 32 / 4 + i / 2 * 8; }
  static __device__ int column(int tile, int i) { return tile * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2; }
};

// How the right operand of a product lies in memory: element (k, n) at n * stride + k, or at k * stride + n.
enum class Right { transposed, plain };

template <Right right, typename T>
__device__ const T* right_element(const T* b, int stride, int k, int n) {
  return right == Right::transposed ? b + n * stride + k : b + k * stride + n;
}

// sum [16, 8 * tiles] += a [16, depth] · b [depth, 8 * tiles]; a row by row.
template <Right right, int tiles>
__device__ void multiply(Accumulator<tiles>& sum, const float* a, int a_stride, const float* b, int b_stride,
                         int depth) {
  using Sum = Accumulator<tiles>;
  for (int k = 0; k < depth; ++k) {
    const float upper = a[Sum::row(0) * a_stride + k], lower = a[Sum::row(2) * a_stride + k];
    NINEFOLD_UNROLL
    for (int tile = 0; tile < tiles; ++tile) {
      const float left = *right_element<right>(b, b_stride, k, Sum::column(tile, 0));
      const float next = *right_element<right>(b, b_stride, k, Sum::column(tile, 1));
      sum.at[tile][0] += upper * left;
      sum.at[tile][1] += upper * next;
      sum.at[tile][2] += lower * left;
      sum.at[tile][3] += lower * next;
    }
  }
}

// Two neighbours as a word; `from` is at an even element.
template <typename T>
__device__ uint32_t pair_at(const T* from) {
  uint32_t word;
  __builtin_memcpy(&word, __builtin_assume_aligned(from, 4), sizeof word);
  return word;
}
template <Right right, typename T>
__device__ uint32_t right_pair(const T* b, int stride, int k, int n) {
  const T* const first = right_element<right>(b, stride, k, n);
  if (right == Right::transposed) return pair_at(first);
  return first->bits | static_cast<uint32_t>(first[stride].bits) << 16;
}

// The same of 16-bit floats. `depth` is a multiple of 16, strides are even and addresses those of whole words.
template <Right right, int tiles, typename T>
__device__ void multiply(Accumulator<tiles>& sum, const T* a, int a_stride, const T* b, int b_stride, int depth) {
  const int group = static_cast<int>(threadIdx.x) % 32 / 4, pair = static_cast<int>(threadIdx.x) % 4 * 2;
  for (int k = pair; k < depth; k += 16) {
    const T *const upper = a + group * a_stride + k, *const lower = upper + 8 * a_stride;
    const uint32_t left[4] = {pair_at(upper), pair_at(lower), pair_at(upper + 8), pair_at(lower + 8)};
    NINEFOLD_UNROLL
    for (int tile = 0; tile < tiles; ++tile) {
      const int column = tile * 8 + group;
      const uint32_t words[2] = {right_pair<right>(b, b_stride, k, column),
                                 right_pair<right>(b, b_stride, k + 8, column)};
      multiply_words(sum.at[tile], left, words, T());
    }
  }
}

// Stores the sums as a tile of T.
template <int tiles, typename T>
__device__ void store_tile(T* to, int stride, const Accumulator<tiles>& sum) {
  NINEFOLD_UNROLL
  for (int tile = 0; tile < tiles; ++tile) {
    NINEFOLD_UNROLL
    for (int i = 0; i < 4; ++i) to[sum.row(i) * stride + sum.column(tile, i)] = T(sum.at[tile][i]);
  }
}

// ---- tiles in shared memory
// -------------------------------------------------------------------------------------------

// Elements between the rows of a tile: 16 bytes or more past its width, so that neighbouring rows lie in other banks.
constexpr int stride_of(int width) { return width + 8; }

// Columns of one head inside a tensor [rows, heads * head_dim].
template <typename T>
struct HeadRows {
  T* address;
  int64_t stride;  // elements from row to row
  int head_dim;
};

// Copies `bytes` at once; both addresses are multiples of it.
template <int bytes>
__device__ void copy_aligned(void* to, const void* from) {
  __builtin_memcpy(__builtin_assume_aligned(to, bytes), __builtin_assume_aligned(from, bytes), bytes);
}

// tile [rows, width] = `count` rows from `first` on, padded with zeros below and to the right. The whole block loads,
// `each` elements a thread and turn.
template <int width, int each, typename T>
__device__ void load_tile_by(T* tile, const HeadRows<const T>& from, int64_t first, int64_t count, int rows) {
  constexpr int turns = width / each;
  for (int i = static_cast<int>(threadIdx.x); i < rows * turns; i += static_cast<int>(blockDim.x)) {
    const int row = i / turns, column = i % turns * each;
    alignas(each * sizeof(T)) T values[each] = {};
    if (row < count && column < from.head_dim) {
      copy_aligned<each * sizeof(T)>(values, from.address + (first + row) * from.stride + column);
    }
    copy_aligned<each * sizeof(T)>(tile + row * stride_of(width) + column, values);
  }
}

// The same, 16 bytes at once where rows begin and end at multiples of that.
template <int width, typename T>
__device__ void load_tile(T* tile, const HeadRows<const T>& from, int64_t first, int64_t count, int rows) {
  constexpr int each = 16 / sizeof(T);
  const bool is_aligned = reinterpret_cast<uintptr_t>(from.address) % 16 == 0 && from.stride % each == 0;
  if (is_aligned && from.head_dim % each == 0) return load_tile_by<width, each>(tile, from, first, count, rows);
  load_tile_by<width, 1>(tile, from, first, count, rows);
}

// Rounds a warp's sums into rows of a head: those of the `count` rows from `first` on that there are.
template <int tiles, typename T>
__device__ void store_rows(const HeadRows<T>& to, int64_t first, int64_t count, const Accumulator<tiles>& sum) {
  NINEFOLD_UNROLL
  for (int tile = 0; tile < tiles; ++tile) {
    NINEFOLD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = sum.row(i), column = sum.column(tile, i);
      if (row < count && column < to.head_dim) to.address[(first + row) * to.stride + column] = T(sum.at[tile][i]);
    }
  }
}

}  // namespace ninefold::NINEFOLD_GPU
