// Backward attention: the weights are computed again from scores and log-sum-exp, one block of keys against one panel
// of queries at a time (Dao 2022, arXiv 2205.14135, algorithm 4). With D = sum(dout * out) of a query:
//   p = exp(q k - log-sum-exp)   dv += pᵀ dout   ds = p * (dout vᵀ - D)   dq += ds k   dk += dsᵀ q
#include <cmath>

#include "common/tensor/cpu/attention_backward.h"
#include "common/tensor/cpu/cpu_kernels.h"

namespace ninefold {
namespace {

using namespace attention;
using simd::Floats, simd::Ints, simd::lanes;

// Queries of the panel that meet a half panel of keys: [first, end), empty if none of them sees any of the keys.
struct Meeting {
  int64_t first, end;
  bool all;  // every one of the queries sees all the keys
};

template <typename T>
Meeting meet(const QueryPanel<T>& queries, const KeyBlock<T>& keys, int64_t half) {
  int64_t first = 0;
  while (first < queries.count && queries.positions.at[first] < keys.smallest[half]) ++first;
  const int64_t end = round_up(queries.count, per_unit<T>);
  if (first == queries.count) return {end, end, true};
  first -= first % per_unit<T>;
  return {first, end, queries.positions.smallest(first, end) >= keys.largest[half]};
}

// out [queries, keys] = left [queries, head_dim] · transposed [head_dim, keys] for one panel of keys, each half from
// the first query that meets it.
template <typename T>
void multiply_panel(float* out, LeftOperand left, const UnitOf<T>* transposed, const Meeting* halves, int64_t count,
                    int64_t depth) {
  const auto multiply = [&](int64_t first, int64_t end, int64_t column, int64_t columns) {
    const std::byte* const from = static_cast<const std::byte*>(left.address) + 4 * first * left.row_stride;
    multiply_block<UnitOf<T>>({out + first * block_keys + column, block_keys, false},
                              {from, left.row_stride, left.depth_stride}, {transposed + column, panel},
                              std::max<int64_t>(end - first, 0), columns, depth);
  };
  const int earlier = halves[0].first <= halves[1].first ? 0 : 1;
  const int64_t both = std::min(halves[1 - earlier].first, count);
  multiply(halves[earlier].first, both, earlier * half_panel, half_panel);
  multiply(both, count, 0, panel);
}

struct Weights {
  Floats p, ds;
};

// One query and one vector of keys, from score and dout vᵀ.
inline Weights weights(const float* score, const float* dp, float scale, float log_sum_exp, float dot_of_out) {
  const Floats p = power_of_two(simd::load(score) * (scale * log2_e) - log_sum_exp * log2_e);
  return {p, p * (simd::load(dp) - dot_of_out) * scale};
}
inline void mask(Weights& weights, int32_t query, const int32_t* keys) {
  const Ints visible = simd::load_raw<Ints>(keys) <= query;
  weights.p = visible ? weights.p : Floats{};
  weights.ds = visible ? weights.ds : Floats{};
}

// Scores become p, and dout vᵀ becomes ds: in place where the unit is f32.
template <typename T>
void differentiate(const QueryPanel<T>& queries, const KeyBlock<T>& keys, int64_t half, Meeting meeting, float scale,
                   const Space<T>& space) {
  for (int64_t query = meeting.first; query < meeting.end; ++query) {
    for (int64_t key = half * half_panel; key < (half + 1) * half_panel; key += lanes) {
      float* const p = space.p.template data<float>() + query * block_keys + key;
      float* const ds = space.ds.template data<float>() + query * block_keys + key;
      Weights w = weights(p, ds, scale, queries.log_sum_exp[query], queries.dot_of_out[query]);
      if (!meeting.all) mask(w, queries.positions.at[query], keys.positions.at + key);
      simd::store(p, w.p);
      simd::store(ds, w.ds);
    }
  }
}
// For bf16 as pairs of queries in place (row query / 2, which has been read), and ds also as rows for dq.
void differentiate(const QueryPanel<bf16>& queries, const KeyBlock<bf16>& keys, int64_t half, Meeting meeting,
                   float scale, const Space<bf16>& space) {
  float* const p = space.p.data<float>();
  float* const ds = space.ds.data<float>();
  bf16* const ds_rows = static_cast<bf16*>(space.ds_rows.raw());
  for (int64_t query = meeting.first; query < meeting.end; query += 2) {
    for (int64_t key = half * half_panel; key < (half + 1) * half_panel; key += lanes) {
      Weights w[2];
      for (int i = 0; i < 2; ++i) {
        const int64_t row = query + i, at = row * block_keys + key;
        w[i] = weights(p + at, ds + at, scale, queries.log_sum_exp[row], queries.dot_of_out[row]);
        if (!meeting.all) mask(w[i], queries.positions.at[row], keys.positions.at + key);
      }
      const simd::Halves first = simd::narrow<bf16>(w[0].ds), second = simd::narrow<bf16>(w[1].ds);
      simd::store_raw(ds_rows + query * block_keys + key, first);
      simd::store_raw(ds_rows + (query + 1) * block_keys + key, second);
      simd::store_raw(ds + query / 2 * block_keys + key, interleave(first, second));
      simd::store_raw(p + query / 2 * block_keys + key,
                      interleave(simd::narrow<bf16>(w[0].p), simd::narrow<bf16>(w[1].p)));
    }
  }
}

// ds as the left operand of dq: zero where a half panel of keys was left out because its queries do not see it.
template <typename T>
LeftOperand ds_on_the_left(const Space<T>& space) {
  return {space.ds.raw(), block_keys, 1};
}
LeftOperand ds_on_the_left(const Space<bf16>& space) { return {space.ds_rows.raw(), block_keys / 2, 1}; }

template <typename T>
void clear_unseen(const Meeting& meeting, int64_t half, const Space<T>& space) {
  auto* const ds = static_cast<UnitOf<T>*>(const_cast<void*>(ds_on_the_left(space).address));
  for (int64_t query = 0; query < meeting.first; ++query) {
    std::fill_n(ds + units<T>(query * block_keys + half * half_panel), units<T>(half_panel), UnitOf<T>{});
  }
}

// dq of a half panel of queries: over the keys up to the last half panel that one of them meets.
template <typename T>
void add_dq(const QueryPanel<T>& queries, const KeyBlock<T>& keys, const Meeting (&meetings)[block_halves],
            const Space<T>& space) {
  const LeftOperand ds = ds_on_the_left(space);
  for (int64_t first = 0; first < queries.count; first += half_panel) {
    const int64_t end = std::min(first + half_panel, queries.count);
    int64_t halves = block_halves;
    while (halves > 0 && meetings[halves - 1].first >= end) --halves;
    const int64_t depth = std::min(units<T>(halves * half_panel), units<T>(keys.count));
    multiply_block<UnitOf<T>>({queries.dq + first * space.width, space.width, true},
                              {static_cast<const std::byte*>(ds.address) + 4 * first * ds.row_stride, ds.row_stride, 1},
                              keys.rows, end - first, space.width, depth);
  }
}

// out [half panel of keys, width] += weightsᵀ [keys, queries] · rows [queries, width].
template <typename T>
void add_to_keys(const Tensor& out, const float* weights, RightOperand<UnitOf<T>> rows, int64_t half, Meeting meeting,
                 int64_t key_count, int64_t width) {
  const int64_t first_key = half * half_panel, first = meeting.first / per_unit<T>;
  const int64_t present = std::min(half_panel, key_count - first_key);
  multiply_block<UnitOf<T>>(
      {out.data<float>() + first_key * width, width, true}, {weights + first * block_keys + first_key, 1, block_keys},
      {rows.address + first * rows.stride, rows.stride}, present, width, meeting.end / per_unit<T> - first);
}

// One panel of queries meets one block of keys.
template <typename T>
void backward_block(const QueryPanel<T>& queries, const KeyBlock<T>& keys, int64_t head_dim, const Space<T>& space) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const int64_t depth = units<T>(head_dim);
  float* const p = space.p.template data<float>();
  float* const ds = space.ds.template data<float>();
  Meeting meetings[block_halves];
  for (int64_t half = 0; half < block_halves; ++half) {
    meetings[half] = meet(queries, keys, half);
    clear_unseen(meetings[half], half, space);
  }
  for (int64_t key = 0; key < keys.count; key += panel) {
    const Meeting* const halves = meetings + key / half_panel;
    multiply_panel<T>(p + key, queries.q, keys.transposed + key * depth, halves, queries.count, depth);
    multiply_panel<T>(ds + key, queries.dout, keys.transposed_values + key * depth, halves, queries.count, depth);
  }
  for (int64_t half = 0; half < block_halves; ++half) {
    if (meetings[half].first >= queries.count) continue;
    differentiate(queries, keys, half, meetings[half], scale, space);
    add_to_keys<T>(space.dv, p, queries.dout_rows, half, meetings[half], keys.count, space.width);
    add_to_keys<T>(space.dk, ds, queries.q_rows, half, meetings[half], keys.count, space.width);
  }
  add_dq(queries, keys, meetings, space);
}

// D of every query of the group.
template <typename T>
void multiply_dout_and_out(float* dot_of_out, const Group<T>& of) {
  for (int64_t row = 0; row < of.heads * of.queries; ++row) {
    const int64_t column = row / of.queries * of.head_dim, query = row % of.queries;
    const T* const dout = of.dout.address + query * of.dout.stride + column;
    const T* const out = of.out.address + query * of.out.stride + column;
    Floats sum{};
    simd::for_each_vector(of.head_dim, [&](int64_t i, auto in_use) {
      sum += simd::load(dout + i, in_use) * simd::load(out + i, in_use);
    });
    dot_of_out[row] = simd::horizontal_sum(sum);
  }
}

// Rounds f32 [count, width] into a head's columns.
template <typename T>
void write_rows(HeadRows<T> to, const float* from, int64_t count, int64_t head_dim, int64_t width) {
  for (int64_t row = 0; row < count; ++row) {
    simd::for_each_vector(head_dim, [&](int64_t i, auto in_use) {
      simd::store(to.address + row * to.stride + i, simd::load(from + row * width + i, in_use), in_use);
    });
  }
}

template <typename T>
void backward_group(const Group<T>& of, const Space<T>& space) {
  float* const dk = space.dk.template data<float>();
  float* const dv = space.dv.template data<float>();
  float* const dq = space.dq.template data<float>();
  std::fill_n(dq, space.dq.size(), 0.0f);
  multiply_dout_and_out(space.dot_of_out.template data<float>(), of);
  for (int64_t key = 0; key < of.keys; key += block_keys) {
    const int64_t count = std::min(block_keys, of.keys - key);
    const KeyBlock<T> keys =
        make_key_block(of.k.from(key), of.v.from(key), of.k_positions + key, count, of.head_dim, space);
    std::fill_n(dk, block_keys * space.width, 0.0f);
    std::fill_n(dv, block_keys * space.width, 0.0f);
    const int32_t first_key = keys.positions.smallest(0, count);
    for (int64_t head = 0; head < of.heads; ++head) {
      for (int64_t query = 0; query < of.queries; query += panel) {
        const int32_t* const positions = of.q_positions + query;
        if (*std::max_element(positions, positions + std::min(panel, of.queries - query)) < first_key) continue;
        backward_block(make_query_panel(of, head, query, space), keys, of.head_dim, space);
      }
    }
    write_rows(of.dk.from(key), dk, count, of.head_dim, space.width);
    write_rows(of.dv.from(key), dv, count, of.head_dim, space.width);
  }
  for (int64_t head = 0; head < of.heads && of.queries > 0; ++head) {
    const HeadRows<T> target = {of.dq.address + head * of.head_dim, of.dq.stride};
    write_rows(target, dq + head * of.queries * space.width, of.queries, of.head_dim, space.width);
  }
}

template <typename T>
void backward(const ops::AttentionGradients& gradients, const Tensor& dout, const Tensor& q, const Tensor& q_positions,
              const Tensor& k, const Tensor& v, const Tensor& k_positions, const ops::Attention& forward,
              const ops::AttentionShape& shape) {
  const int64_t queries = q_positions.size(), keys = k_positions.size(), d = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads;
  const Space<T> space(q.device(), d, group * queries);
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      const auto of_queries = [&](const Tensor& x) { return head_rows<T>(x, batch, queries, kv_head * group, d); };
      const auto of_keys = [&](const Tensor& x) { return head_rows<T>(x, batch, keys, kv_head, d); };
      const auto read = [](HeadRows<T> rows) { return HeadRows<const T>{rows.address, rows.stride}; };
      const float* const log_sum_exp =
          forward.log_sum_exp.data<float>() + (batch * shape.heads + kv_head * group) * queries;
      backward_group(
          Group<T>{read(of_queries(q)), read(of_queries(dout)), read(of_queries(forward.out)), read(of_keys(k)),
                   read(of_keys(v)), of_queries(gradients.dq), of_keys(gradients.dk), of_keys(gradients.dv),
                   log_sum_exp, q_positions.data<int32_t>(), k_positions.data<int32_t>(), group, queries, keys, d},
          space);
    }
  }
}

}  // namespace

void CpuKernels::attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                          const Tensor& q_positions, const Tensor& k, const Tensor& v,
                                          const Tensor& k_positions, const ops::Attention& forward,
                                          const ops::AttentionShape& shape) {
  for_float_type(q.dtype(), [&](auto type) {
    backward<decltype(type)>(out, dout, q, q_positions, k, v, k_positions, forward, shape);
  });
}

}  // namespace ninefold
