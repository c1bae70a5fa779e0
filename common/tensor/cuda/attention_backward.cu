// Attention backward: the weights are computed again from scores and log-sum-exp. With D = sum(dout * out) of a query:
//   p = exp(q k - log-sum-exp)   dv += pᵀ dout   ds = p * (dout vᵀ - D)   dq += ds k   dk += dsᵀ q
// One kernel goes over the keys of a tile of queries for dq, another over the queries of a tile of keys for dk and dv:
// scores are computed twice, and no sum is shared between blocks, so that its order never changes.
#include "common/tensor/cuda/attention.h"
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

template <typename T>
struct BackwardCall {
  AttentionCall<T> of;
  const T* dout;
  const float *log_sum_exp, *dot_of_out;  // [batch, heads, queries]

  __device__ int64_t first_of_head(int64_t batch, int head) const { return (batch * of.heads + head) * of.queries; }
};

// D of every query.
template <typename T>
struct DotOfOut {
  float* dots;
  const T *dout, *out;
  int64_t heads, queries, head_dim;

  __device__ void operator()(int64_t i) const {
    const int64_t query = i % queries, head = i / queries % heads, batch = i / queries / heads;
    const int64_t begin = ((batch * queries + query) * heads + head) * head_dim;
    float dot = 0;
    for (int64_t at = begin; at < begin + head_dim; ++at)
      dot += static_cast<float>(dout[at]) * static_cast<float>(out[at]);
    dots[i] = dot;
  }
};

struct Weight {
  float p, ds;
};

// Of one query and one key, from score and dout vᵀ.
__device__ inline Weight weight_of(float score, float dp, bool is_seen, float scale, float log_sum_exp, float dot) {
  if (!is_seen) return {0.0f, 0.0f};
  const float p = exp2f(score * (scale * log2_e) - log_sum_exp * log2_e);
  return {p, p * (dp - dot) * scale};
}

// The rows that stay (a tile of queries or of keys, in two tensors), those that pass by, and weights between them.
template <typename T, int width>
struct BackwardTiles {
  using Sizes = TileSizes<width>;
  using Scores = Accumulator<Sizes::columns / 8>;
  static constexpr int stride = stride_of(width), weight_stride = stride_of(Sizes::columns);
  T first[Sizes::rows * stride], second[Sizes::rows * stride];
  T passing_first[Sizes::columns * stride], passing_second[Sizes::columns * stride];
  T weights[Sizes::rows * weight_stride];
  int32_t positions[Sizes::columns];
  float log_sum_exp[Sizes::columns], dot_of_out[Sizes::columns];  // where queries pass by

  using Rows = HeadRows<const T>;
  __device__ void load(const Rows& of_first, const Rows& of_second, int64_t from, int64_t count) {
    load_tile<width>(first, of_first, from, count, Sizes::rows);
    load_tile<width>(second, of_second, from, count, Sizes::rows);
  }
  __device__ void load_passing(const Rows& of_first, const Rows& of_second, int64_t from, int64_t length) {
    load_tile<width>(passing_first, of_first, from, length - from, Sizes::columns);
    load_tile<width>(passing_second, of_second, from, length - from, Sizes::columns);
  }
  // Of the 16 rows from `row` on with those that pass by: scores, and dout vᵀ; transposed where queries pass by.
  __device__ void multiply_passing(Scores& scores, Scores& dp, int row) const {
    multiply<Right::transposed>(scores, first + row * stride, stride, passing_first, stride, width);
    multiply<Right::transposed>(dp, second + row * stride, stride, passing_second, stride, width);
  }
};

// Grid: tiles of queries, heads, batch.
template <typename T, int width>
__global__ void differentiate_queries(BackwardCall<T> call, T* dq) {
  using Sizes = TileSizes<width>;
  using Tiles = BackwardTiles<T, width>;
  using Scores = typename Tiles::Scores;
  auto& tiles = *reinterpret_cast<Tiles*>(shared_memory());
  const AttentionCall<T>& of = call.of;
  const int head = static_cast<int>(blockIdx.y), warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int64_t batch = blockIdx.z, first = int64_t{blockIdx.x} * Sizes::rows;
  const int64_t count = rows_there(first, of.queries, Sizes::rows);
  const HeadRows<const T> k = of.of_key_head(of.k, batch, of.key_head_of(head));
  const HeadRows<const T> v = of.of_key_head(of.v, batch, of.key_head_of(head));
  tiles.load(of.of_query_head(of.q, batch, head), of.of_query_head(call.dout, batch, head), first, count);
  const int32_t latest = latest_query(of.q_positions, first, count);
  int32_t positions[2];
  float log_sum_exp[2] = {}, dot_of_out[2] = {};
  for (int row = 0; row < 2; ++row) {
    const int64_t query = first + warp_row + Scores::row(2 * row);
    positions[row] = query_position(of.q_positions, query, of.queries);
    if (query >= of.queries) continue;
    log_sum_exp[row] = call.log_sum_exp[call.first_of_head(batch, head) + query];
    dot_of_out[row] = call.dot_of_out[call.first_of_head(batch, head) + query];
  }
  T* const weights = tiles.weights + warp_row * Tiles::weight_stride;
  Accumulator<width / 8> sum;
  for (int64_t key = 0; key < of.keys; key += Sizes::columns) {
    int32_t position = INT_MAX;
    if (threadIdx.x < Sizes::columns) {
      position = key_position(of.k_positions, key + threadIdx.x, of.keys);
      tiles.positions[threadIdx.x] = position;
    }
    if (!__syncthreads_or(position <= latest)) continue;
    tiles.load_passing(k, v, key, of.keys);
    __syncthreads();
    Scores scores, dp;
    tiles.multiply_passing(scores, dp, warp_row);
    NINEFOLD_UNROLL
    for (int i = 0; i < Sizes::columns / 2; ++i) {
      float& score = scores.at[i / 4][i % 4];
      const int row = i % 4 / 2;
      const bool is_seen = tiles.positions[scores.column(i / 4, i % 4)] <= positions[row];
      score = weight_of(score, dp.at[i / 4][i % 4], is_seen, of.scale, log_sum_exp[row], dot_of_out[row]).ds;
    }
    store_tile(weights, Tiles::weight_stride, scores);
    __syncwarp();
    multiply<Right::plain>(sum, weights, Tiles::weight_stride, tiles.passing_first, Tiles::stride, Sizes::columns);
    __syncthreads();  // before the next tiles replace these
  }
  store_rows(of.of_query_head(dq, batch, head), first + warp_row, count - warp_row, sum);
}

// Grid: tiles of keys, heads of keys, batch. All the heads of queries that share the keys pass by.
template <typename T, int width>
__global__ void differentiate_keys(BackwardCall<T> call, T* dk, T* dv) {
  using Sizes = TileSizes<width>;
  using Tiles = BackwardTiles<T, width>;
  using Scores = typename Tiles::Scores;
  auto& tiles = *reinterpret_cast<Tiles*>(shared_memory());
  const AttentionCall<T>& of = call.of;
  const int key_head = static_cast<int>(blockIdx.y), warp_row = static_cast<int>(threadIdx.x) / 32 * 16;
  const int64_t batch = blockIdx.z, first = int64_t{blockIdx.x} * Sizes::rows;
  const int64_t count = rows_there(first, of.keys, Sizes::rows);
  tiles.load(of.of_key_head(of.k, batch, key_head), of.of_key_head(of.v, batch, key_head), first, count);
  const int32_t earliest = earliest_key(of.k_positions, first, count);
  const int32_t positions[2] = {key_position(of.k_positions, first + warp_row + Scores::row(0), of.keys),
                                key_position(of.k_positions, first + warp_row + Scores::row(2), of.keys)};
  T* const weights = tiles.weights + warp_row * Tiles::weight_stride;
  Accumulator<width / 8> dk_sum, dv_sum;
  const int group = of.heads / of.kv_heads;
  for (int head = key_head * group; head < (key_head + 1) * group; ++head) {
    for (int64_t query = 0; query < of.queries; query += Sizes::columns) {
      int32_t position = INT_MIN;
      if (threadIdx.x < Sizes::columns) {
        const int64_t row = query + threadIdx.x;
        position = query_position(of.q_positions, row, of.queries);
        tiles.positions[threadIdx.x] = position;
        const int64_t at = call.first_of_head(batch, head) + row;
        tiles.log_sum_exp[threadIdx.x] = row < of.queries ? call.log_sum_exp[at] : 0.0f;
        tiles.dot_of_out[threadIdx.x] = row < of.queries ? call.dot_of_out[at] : 0.0f;
      }
      if (!__syncthreads_or(position >= earliest)) continue;
      tiles.load_passing(of.of_query_head(of.q, batch, head), of.of_query_head(call.dout, batch, head), query,
                         of.queries);
      __syncthreads();
      Scores scores, dp;  // transposed: a row is a key
      tiles.multiply_passing(scores, dp, warp_row);
      NINEFOLD_UNROLL
      for (int i = 0; i < Sizes::columns / 2; ++i) {
        float &score = scores.at[i / 4][i % 4], &ds = dp.at[i / 4][i % 4];
        const int column = scores.column(i / 4, i % 4);
        const bool is_seen = positions[i % 4 / 2] <= tiles.positions[column];
        const Weight weight =
            weight_of(score, ds, is_seen, of.scale, tiles.log_sum_exp[column], tiles.dot_of_out[column]);
        score = weight.p;
        ds = weight.ds;
      }
      store_tile(weights, Tiles::weight_stride, scores);
      __syncwarp();
      multiply<Right::plain>(dv_sum, weights, Tiles::weight_stride, tiles.passing_second, Tiles::stride,
                             Sizes::columns);
      __syncwarp();  // before ds replaces p
      store_tile(weights, Tiles::weight_stride, dp);
      __syncwarp();
      multiply<Right::plain>(dk_sum, weights, Tiles::weight_stride, tiles.passing_first, Tiles::stride, Sizes::columns);
      __syncthreads();  // before the next tiles replace these
    }
  }
  store_rows(of.of_key_head(dk, batch, key_head), first + warp_row, count - warp_row, dk_sum);
  store_rows(of.of_key_head(dv, batch, key_head), first + warp_row, count - warp_row, dv_sum);
}

}  // namespace

void GpuKernels::attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                          const Tensor& q_positions, const Tensor& k, const Tensor& v,
                                          const Tensor& k_positions, const ops::Attention& forward,
                                          const ops::AttentionShape& shape) {
  const Tensor dots = workspace(q.device(), forward.log_sum_exp.size());
  for_float_type(q.dtype(), [&](auto type) {
    using T = decltype(type);
    for_each(stream_, dots.size(),
             DotOfOut<T>{dots.address<float>(), dout.address<T>(), forward.out.address<T>(), shape.heads,
                         q_positions.size(), shape.head_dim});
    const BackwardCall<T> call{attention_call<T>(q, q_positions, k, v, k_positions, shape), dout.address<T>(),
                               forward.log_sum_exp.address<float>(), dots.address<float>()};
    for_width(shape.head_dim, [&](auto tile_width) {
      constexpr int width = decltype(tile_width)::value;
      using Sizes = TileSizes<width>;
      const size_t shared_bytes = sizeof(BackwardTiles<T, width>);
      launch(differentiate_queries<T, width>, attention_grid(q_positions.size(), Sizes::rows, shape.heads, shape.batch),
             dim3(Sizes::threads), shared_bytes, stream_, call, out.dq.address<T>());
      launch(differentiate_keys<T, width>, attention_grid(k_positions.size(), Sizes::rows, shape.kv_heads, shape.batch),
             dim3(Sizes::threads), shared_bytes, stream_, call, out.dk.address<T>(), out.dv.address<T>());
    });
  });
}

}  // namespace ninefold::NINEFOLD_GPU
