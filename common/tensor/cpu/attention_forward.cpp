// Forward attention: for each panel of queries an online softmax over blocks of keys (Milakov, Gimelshein 2018, arXiv
// 1805.02867). Scores are kept transposed, [keys, queries], so that a vector holds one key's scores of many queries and
// the softmax needs nothing across lanes.
#include <cmath>

#include "common/tensor/cpu/attention.h"
#include "common/tensor/cpu/cpu_kernels.h"

namespace ninefold {
namespace {

using namespace attention;
using simd::Floats, simd::Ints, simd::lanes;

constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr int64_t block_keys = 128;
// Panels of queries that share one copy of a block of keys and values.
constexpr int64_t panels_per_block = 8;

// Scratch memory of one call.
template <typename T>
struct Space {
  using Unit = UnitOf<T>;
  Space(const DeviceHandle& device, int64_t head_dim)
      : width(round_up(head_dim, lanes)),
        queries(workspace(device, panels_per_block * units<T>(head_dim) * panel)),
        rows(workspace(device, block_keys * width)),
        values(workspace(device, block_keys * width)),
        scores(workspace(device, block_keys * panel)),
        sums(workspace(device, panels_per_block * panel * width)) {}

  int64_t width;
  Tensor queries, rows, values, scores, sums;
};

// One panel of queries on its way through the keys.
template <typename T>
struct QueryPanel {
  const UnitOf<T>* transposed;  // [units of head_dim, panel]
  int64_t count;
  Positions<panel> positions;
  float* sums;  // [panel, width]: the values weighted with 2^(score - largest)
  alignas(64) float largest[panel];
  alignas(64) float denominator[panel];
};

// Keys of the block that a half panel must look at: those up to the last one it sees.
struct Visible {
  int64_t keys;
  bool all;  // every query sees all of them, so there is nothing to mask
};

template <typename T>
Visible visible_keys(const QueryPanel<T>& queries, int half, const Positions<block_keys>& keys, int64_t key_count) {
  const int64_t begin = half * half_panel, end = std::min(begin + half_panel, queries.count);
  if (begin >= end) return {0, true};
  const int32_t last_query = queries.positions.largest(begin, end);
  int64_t count = key_count;
  while (count > 0 && keys.at[count - 1] > last_query) --count;
  const int64_t whole = round_up(count, per_unit<T>);
  if (count == 0) return {0, true};
  return {whole, keys.largest(0, whole) <= queries.positions.smallest(begin, end)};
}

// scores [keys, panel] = keys · queriesᵀ, each half only as far as it sees.
template <typename T>
void multiply_scores(float* scores, const QueryPanel<T>& queries, LeftOperand keys, int64_t key_count, int64_t depth,
                     const Visible (&visible)[2]) {
  const int64_t common = std::min({visible[0].keys, visible[1].keys, key_count});
  multiply_block<UnitOf<T>>({scores, panel, false}, keys, {queries.transposed, panel}, common, panel, depth);
  const int longer = visible[1].keys > visible[0].keys ? 1 : 0;
  const int64_t rest = std::min(visible[longer].keys, key_count) - common;
  const std::byte* const from = static_cast<const std::byte*>(keys.address) + 4 * common * keys.row_stride;
  multiply_block<UnitOf<T>>({scores + common * panel + longer * half_panel, panel, false},
                            {from, keys.row_stride, keys.depth_stride},
                            {queries.transposed + longer * half_panel, panel}, rest, half_panel, depth);
}

// One vector of queries: masks their column of scores [keys, panel], and returns the largest of it and of `largest`.
Floats mask_and_find_largest(float* scores, Floats largest, float scale, Ints query_positions, const int32_t* keys,
                             Visible visible) {
  Floats best = simd::broadcast(-infinity);
  for (int64_t key = 0; key < visible.keys; ++key) {
    Floats score = simd::load(scores + key * panel);
    if (!visible.all) {
      score = query_positions >= keys[key] ? score : simd::broadcast(-infinity);
      simd::store(scores + key * panel, score);
    }
    best = simd::maximum(best, score);
  }
  return simd::maximum(largest, best * scale);
}

// Turns the column into 2^(score * scale - largest), ready to be the left operand of the product with the values, and
// returns its sum.
Floats exponentiate(float* scores, Floats largest, float scale, int64_t keys, const float*) {
  Floats sum{};
  for (int64_t key = 0; key < keys; ++key) {
    const Floats p = power_of_two(simd::load(scores + key * panel) * scale - largest);
    simd::store(scores + key * panel, p);
    sum += p;
  }
  return sum;
}
Floats exponentiate(float* scores, Floats largest, float scale, int64_t keys, const Pair*) {
  Floats sum{};
  for (int64_t key = 0; key < keys; key += 2) {
    const Floats first = power_of_two(simd::load(scores + key * panel) * scale - largest);
    const Floats second = power_of_two(simd::load(scores + (key + 1) * panel) * scale - largest);
    simd::store_raw(scores + key / 2 * panel,
                    interleave(simd::narrow<bf16>(first), simd::narrow<bf16>(second)));  // a row that has been read
    sum += first + second;
  }
  return sum;
}

// Scores of a half panel become weights; its sums and denominators shrink to the new largest score.
template <typename T>
void softmax_half(float* scores, QueryPanel<T>& queries, int half, const Positions<block_keys>& keys, Visible visible,
                  float scale, int64_t width) {
  for (int64_t query = half * half_panel; query < (half + 1) * half_panel; query += lanes) {
    const Floats before = simd::load(queries.largest + query);
    const Ints positions = simd::load_raw<Ints>(queries.positions.at + query);
    const Floats largest = mask_and_find_largest(scores + query, before, scale, positions, keys.at, visible);
    const Floats finite = largest > -infinity ? largest : Floats{};  // no key seen so far: avoid inf - inf
    alignas(64) float shrink[lanes];
    simd::store(shrink, power_of_two(before - finite));
    const Floats sum =
        exponentiate(scores + query, finite, scale, visible.keys, static_cast<const UnitOf<T>*>(nullptr));
    simd::store(queries.largest + query, largest);
    simd::store(queries.denominator + query, simd::load(queries.denominator + query) * simd::load(shrink) + sum);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (shrink[lane] == 1.0f) continue;
      float* const row = queries.sums + (query + lane) * width;
      simd::for_each_vector(width, [&](int64_t i, auto) { simd::store(row + i, simd::load(row + i) * shrink[lane]); });
    }
  }
}

// One panel of queries meets one block of keys and values.
template <typename T>
void attend(QueryPanel<T>& queries, LeftOperand keys, RightOperand<UnitOf<T>> values,
            const Positions<block_keys>& key_positions, int64_t key_count, int64_t head_dim, const Space<T>& space) {
  const Visible visible[2] = {visible_keys(queries, 0, key_positions, key_count),
                              visible_keys(queries, 1, key_positions, key_count)};
  const float scale = log2_e / std::sqrt(static_cast<float>(head_dim));  // weights are powers of two
  float* const scores = space.scores.template data<float>();
  multiply_scores(scores, queries, keys, key_count, units<T>(head_dim), visible);
  for (int half = 0; half < 2; ++half) {
    if (visible[half].keys == 0) continue;
    softmax_half(scores, queries, half, key_positions, visible[half], scale, space.width);
    const int64_t first = half * half_panel;
    multiply_block<UnitOf<T>>({queries.sums + first * space.width, space.width, true}, {scores + first, 1, panel},
                              values, half_panel, space.width, visible[half].keys / per_unit<T>);
  }
}

// out = sums / denominator, log-sum-exp = largest + log(denominator).
template <typename T>
void finish(const QueryPanel<T>& queries, HeadRows<T> out, float* log_sum_exp, int64_t head_dim, int64_t width) {
  for (int64_t query = 0; query < queries.count; ++query) {
    const float sum = queries.denominator[query], inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    const float* const from = queries.sums + query * width;
    T* const to = out.address + query * out.stride;
    simd::for_each_vector(
        head_dim, [&](int64_t i, auto in_use) { simd::store(to + i, simd::load(from + i, in_use) * inverse, in_use); });
  }
  for (int64_t query = 0; query < panel; query += lanes) {
    const Floats result =
        simd::load(queries.largest + query) * (1.0f / log2_e) + simd::log(simd::load(queries.denominator + query));
    const int64_t count = std::clamp<int64_t>(queries.count - query, 0, lanes);
    std::memcpy(log_sum_exp + query, &result, static_cast<size_t>(count) * sizeof(float));
  }
}

template <typename T>
QueryPanel<T> start_panel(HeadRows<const T> q, const int32_t* positions, int64_t count, int64_t index, int64_t head_dim,
                          const Space<T>& space) {
  using Unit = UnitOf<T>;
  Unit* const transposed = static_cast<Unit*>(space.queries.raw()) + index * units<T>(head_dim) * panel;
  const LeftOperand rows = rows_on_the_left(q, count, head_dim, static_cast<Unit*>(space.rows.raw()));
  transpose_into_panel(transposed, rows, count, units<T>(head_dim));
  QueryPanel<T> queries{
      transposed, count, {positions, count, INT_MIN}, space.sums.template data<float>() + index * panel * space.width,
      {},         {}};
  std::fill_n(queries.largest, panel, -infinity);
  std::fill_n(queries.denominator, panel, 0.0f);
  std::fill_n(queries.sums, panel * space.width, 0.0f);
  return queries;
}

// Everything that one head of one batch element needs.
template <typename T>
struct Head {
  HeadRows<const T> q, k, v;
  HeadRows<T> out;
  float* log_sum_exp;
  const int32_t *q_positions, *k_positions;
  int64_t queries, keys, head_dim;
};

template <typename T>
void attend_block(const Head<T>& head, int64_t first_query, const Space<T>& space) {
  std::vector<QueryPanel<T>> panels;
  for (int64_t i = 0; i < panels_per_block && first_query + i * panel < head.queries; ++i) {
    const int64_t query = first_query + i * panel, count = std::min(panel, head.queries - query);
    panels.push_back(start_panel(head.q.from(query), head.q_positions + query, count, i, head.head_dim, space));
  }
  const int32_t last_query = *std::max_element(
      head.q_positions + first_query,
      head.q_positions + first_query + std::min(panels_per_block * panel, head.queries - first_query));
  for (int64_t key = 0; key < head.keys; key += block_keys) {
    const int64_t count = std::min(block_keys, head.keys - key);
    const Positions<block_keys> positions(head.k_positions + key, count, INT_MAX);
    if (positions.smallest(0, count) > last_query) continue;
    const LeftOperand keys =
        rows_on_the_left(head.k.from(key), count, head.head_dim, static_cast<UnitOf<T>*>(space.rows.raw()));
    const RightOperand<UnitOf<T>> values = rows_on_the_right(head.v.from(key), count, head.head_dim, space.width,
                                                             static_cast<UnitOf<T>*>(space.values.raw()));
    for (QueryPanel<T>& queries : panels) attend(queries, keys, values, positions, count, head.head_dim, space);
  }
  for (size_t i = 0; i < panels.size(); ++i) {
    const int64_t query = first_query + static_cast<int64_t>(i) * panel;
    finish(panels[i], head.out.from(query), head.log_sum_exp + query, head.head_dim, space.width);
  }
}

template <typename T>
void forward(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k, const Tensor& v,
             const Tensor& k_positions, const ops::AttentionShape& shape) {
  const Space<T> space(q.device(), shape.head_dim);
  const int64_t queries = q_positions.size(), keys = k_positions.size(), width = shape.head_dim;
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    for (int64_t head = 0; head < shape.heads; ++head) {
      const int64_t kv_head = head / (shape.heads / shape.kv_heads);
      const auto rows = [&](const Tensor& x, int64_t length, int64_t index) {
        const HeadRows<T> all = head_rows<T>(x, batch, length, index, width);
        return HeadRows<const T>{all.address, all.stride};
      };
      const Head<T> one = {rows(q, queries, head),
                           rows(k, keys, kv_head),
                           rows(v, keys, kv_head),
                           head_rows<T>(out.out, batch, queries, head, width),
                           out.log_sum_exp.data<float>() + (batch * shape.heads + head) * queries,
                           q_positions.data<int32_t>(),
                           k_positions.data<int32_t>(),
                           queries,
                           keys,
                           width};
      for (int64_t query = 0; query < queries; query += panels_per_block * panel) attend_block(one, query, space);
    }
  }
}

}  // namespace

void CpuKernels::attention_block(const ops::Attention& out, const Tensor& q, const Tensor& q_positions, const Tensor& k,
                                 const Tensor& v, const Tensor& k_positions, const ops::AttentionShape& shape) {
  for_float_type(q.dtype(), [&](auto type) { forward<decltype(type)>(out, q, q_positions, k, v, k_positions, shape); });
}

}  // namespace ninefold
