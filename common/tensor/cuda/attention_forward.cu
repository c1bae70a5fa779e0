// Attention forward: a tile of queries meets the keys tile by tile, with softmax relative to the largest score so far
// (Dao 2023, arXiv 2307.08691, algorithm 1). Tiles of keys that no query of the block sees are left out.
#include "common/tensor/cuda/attention.h"
#include "common/tensor/cuda/gpu_kernels.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

// What a block keeps in shared memory.
template <typename T, int width>
struct ForwardTiles {
  using Sizes = TileSizes<width>;
  static constexpr int stride = stride_of(width), weight_stride = stride_of(Sizes::columns);
  T q[Sizes::rows * stride];
  T k[Sizes::columns * stride];
  T v[Sizes::columns * stride];
  T weights[Sizes::rows * weight_stride];
  int32_t k_positions[Sizes::columns];
};

// Of the two rows of scores that a lane holds parts of, for the queries of a warp.
struct OnlineSoftmax {
  float maximum[2] = {-INFINITY, -INFINITY};  // in powers of two
  float total[2] = {};                        // of the lane's own columns

  // Scores become weights relative to the largest score so far, to which `sum` is moved, too.
  template <int tiles, int sum_tiles>
  __device__ void update(Accumulator<tiles>& scores, Accumulator<sum_tiles>& sum, const int32_t (&q_positions)[2],
                         const int32_t* k_positions, float scale) {
    NINEFOLD_UNROLL
    for (int row = 0; row < 2; ++row) {
      float largest = maximum[row];
      NINEFOLD_UNROLL
      for (int i = 0; i < 2 * tiles; ++i) {
        float& score = scores.at[i / 2][2 * row + i % 2];
        const bool is_seen = k_positions[scores.column(i / 2, i % 2)] <= q_positions[row];
        score = is_seen ? score * (scale * log2_e) : -INFINITY;
        largest = fmaxf(largest, score);
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float correction = largest == -INFINITY ? 1.0f : exp2f(maximum[row] - largest);
      maximum[row] = largest;
      total[row] *= correction;
      NINEFOLD_UNROLL
      for (int i = 0; i < 2 * tiles; ++i) {
        float& score = scores.at[i / 2][2 * row + i % 2];
        score = score == -INFINITY ? 0.0f : exp2f(score - largest);
        total[row] += score;
      }
      NINEFOLD_UNROLL
      for (int i = 0; i < 2 * sum_tiles; ++i) sum.at[i / 2][2 * row + i % 2] *= correction;
    }
  }

  // The whole row's total, in every lane that holds part of it.
  __device__ float whole_total(int row) const {
    float whole = total[row] + __shfl_xor_sync(0xffffffffu, total[row], 1);
    whole += __shfl_xor_sync(0xffffffffu, whole, 2);
    return whole;
  }
};

// Divides a warp's sums by the totals, and stores the log-sum-exp of its `count` rows.
template <int tiles>
__device__ void finish(Accumulator<tiles>& sum, const OnlineSoftmax& softmax, float* log_sum_exp, int64_t count) {
  NINEFOLD_UNROLL
  for (int row = 0; row < 2; ++row) {
    const float total = softmax.whole_total(row);
    NINEFOLD_UNROLL
    for (int i = 0; i < 2 * tiles; ++i) {
      float& value = sum.at[i / 2][2 * row + i % 2];
      value = total == 0.0f ? 0.0f : value / total;
    }
    if (threadIdx.x % 4 > 0 || sum.row(2 * row) >= count) continue;
    log_sum_exp[sum.row(2 * row)] = total == 0.0f ? -INFINITY : (softmax.maximum[row] + log2f(total)) * (1.0f / log2_e);
  }
}

// Grid: tiles of queries, heads, batch.
template <typename T, int width>
__global__ void attend(AttentionCall<T> of, T* out, float* log_sum_exp) {
  using Sizes = TileSizes<width>;
  using Tiles = ForwardTiles<T, width>;
  auto& tiles = *reinterpret_cast<Tiles*>(shared_memory());
  const int head = static_cast<int>(blockIdx.y), warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int64_t batch = blockIdx.z, first = int64_t{blockIdx.x} * Sizes::rows;
  const int64_t count = rows_there(first, of.queries, Sizes::rows);
  const HeadRows<const T> k = of.of_key_head(of.k, batch, of.key_head_of(head));
  const HeadRows<const T> v = of.of_key_head(of.v, batch, of.key_head_of(head));
  load_tile<width>(tiles.q, of.of_query_head(of.q, batch, head), first, count, Sizes::rows);
  const int32_t latest = latest_query(of.q_positions, first, count);
  Accumulator<width / 8> sum;
  const int32_t positions[2] = {query_position(of.q_positions, first + warp_row + sum.row(0), of.queries),
                                query_position(of.q_positions, first + warp_row + sum.row(2), of.queries)};
  OnlineSoftmax softmax;
  T* const weights = tiles.weights + warp_row * Tiles::weight_stride;
  for (int64_t key = 0; key < of.keys; key += Sizes::columns) {
    int32_t position = INT_MAX;
    if (threadIdx.x < Sizes::columns) {
      position = key_position(of.k_positions, key + threadIdx.x, of.keys);
      tiles.k_positions[threadIdx.x] = position;
    }
    if (!__syncthreads_or(position <= latest)) continue;
    load_tile<width>(tiles.k, k, key, of.keys - key, Sizes::columns);
    load_tile<width>(tiles.v, v, key, of.keys - key, Sizes::columns);
    __syncthreads();
    Accumulator<Sizes::columns / 8> scores;
    multiply<Right::transposed>(scores, tiles.q + warp_row * Tiles::stride, Tiles::stride, tiles.k, Tiles::stride,
                                width);
    softmax.update(scores, sum, positions, tiles.k_positions, of.scale);
    store_tile(weights, Tiles::weight_stride, scores);
    __syncwarp();
    multiply<Right::plain>(sum, weights, Tiles::weight_stride, tiles.v, Tiles::stride, Sizes::columns);
    __syncthreads();  // before the next tiles replace these
  }
  finish(sum, softmax, log_sum_exp + (batch * of.heads + head) * of.queries + first + warp_row, count - warp_row);
  store_rows(of.of_query_head(out, batch, head), first + warp_row, count - warp_row, sum);
}

}  // namespace

void GpuKernels::attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                                 const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) {
  for_float_type(q.dtype(), [&](auto type) {
    using T = decltype(type);
    for_width(shape.head_dim, [&](auto tile_width) {
      constexpr int width = decltype(tile_width)::value;
      using Sizes = TileSizes<width>;
      launch(attend<T, width>, attention_grid(q_positions.size(), Sizes::rows, shape.heads, shape.batch),
             dim3(Sizes::threads), sizeof(ForwardTiles<T, width>), stream_,
             attention_call<T>(q, q_positions, k, v, k_positions, shape), out.out.address<T>(),
             out.log_sum_exp.address<float>());
    });
  });
}

}  // namespace ninefold::NINEFOLD_GPU
