// What the forward and the backward of attention share: one block of threads works on a tile of rows of one head, 16 a
// warp, and meets the other side tile by tile.
#pragma once

#include <climits>

#include "common/tensor/cuda/tiles.h"
#include "common/tensor/ops.h"

namespace ninefold::NINEFOLD_GPU {

// Tiles for a head width, rounded up to `width`: fewer rows and columns where they are wide, so that they fit into
// shared memory.
template <int width>
struct TileSizes {
  static constexpr int warps = width > 128 ? 2 : 4;
  static constexpr int threads = 32 * warps;
  static constexpr int rows = 16 * warps;
  static constexpr int columns = 32;
};

// Calls body(std::integral_constant<int, width>()) with the width of the tiles that hold a head.
template <typename Body>
void for_width(int64_t head_dim, Body&& body) {
  expect(head_dim <= 256, "attention heads of {} columns: on a GPU they have at most 256", head_dim);
  if (head_dim <= 32) return body(std::integral_constant<int, 32>());
  if (head_dim <= 64) return body(std::integral_constant<int, 64>());
  if (head_dim <= 128) return body(std::integral_constant<int, 128>());
  body(std::integral_constant<int, 256>());
}

// The arguments of one call.
template <typename T>
struct AttentionCall {
  const T *q, *k, *v;
  const int32_t *q_positions, *k_positions;
  int64_t queries, keys;
  int heads, kv_heads, head_dim;
  float scale;

  // The rows of a head in a tensor like q, and in one like k.
  template <typename X>
  __device__ HeadRows<X> of_query_head(X* x, int64_t batch, int head) const {
    const int64_t stride = int64_t{heads} * head_dim;
    return {x + batch * queries * stride + head * head_dim, stride, head_dim};
  }
  template <typename X>
  __device__ HeadRows<X> of_key_head(X* x, int64_t batch, int head) const {
    const int64_t stride = int64_t{kv_heads} * head_dim;
    return {x + batch * keys * stride + head * head_dim, stride, head_dim};
  }
  __device__ int key_head_of(int head) const { return head / (heads / kv_heads); }
};

template <typename T>
AttentionCall<T> attention_call(const Tensor& q, const Tensor& q_positions, const Tensor& k, const Tensor& v,
                                const Tensor& k_positions, const ops::AttentionShape& shape) {
  return {q.address<T>(),
          k.address<T>(),
          v.address<T>(),
          q_positions.address<int32_t>(),
          k_positions.address<int32_t>(),
          q_positions.size(),
          k_positions.size(),
          static_cast<int>(shape.heads),
          static_cast<int>(shape.kv_heads),
          static_cast<int>(shape.head_dim),
          1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

inline dim3 attention_grid(int64_t length, int rows, int64_t heads, int64_t batch) {
  return dim3(static_cast<unsigned>((length + rows - 1) / rows), static_cast<unsigned>(heads),
              static_cast<unsigned>(batch));
}

inline constexpr float log2_e = 1.44269504088896341f;

// How many of a tile's rows there are.
__device__ inline int64_t rows_there(int64_t first, int64_t length, int rows) {
  return length - first < rows ? length - first : rows;
}

// Queries past the end see nothing, and nobody sees keys past the end.
__device__ inline int32_t query_position(const int32_t* positions, int64_t row, int64_t length) {
  return row < length ? positions[row] : INT_MIN;
}
__device__ inline int32_t key_position(const int32_t* positions, int64_t row, int64_t length) {
  return row < length ? positions[row] : INT_MAX;
}

// The largest position of a tile's queries, or the smallest of its keys.
__device__ inline int32_t latest_query(const int32_t* positions, int64_t first, int64_t count) {
  int32_t latest = INT_MIN;
  for (int64_t i = first; i < first + count; ++i) latest = positions[i] > latest ? positions[i] : latest;
  return latest;
}
__device__ inline int32_t earliest_key(const int32_t* positions, int64_t first, int64_t count) {
  int32_t earliest = INT_MAX;
  for (int64_t i = first; i < first + count; ++i) earliest = positions[i] < earliest ? positions[i] : earliest;
  return earliest;
}

}  // namespace ninefold::NINEFOLD_GPU
