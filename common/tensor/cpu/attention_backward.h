// The blocks that the backward of attention works on, and how a head's rows are copied into them.
#pragma once

#include "common/tensor/cpu/attention.h"

namespace ninefold::attention {

inline constexpr int64_t block_keys = 256;
inline constexpr int64_t block_halves = block_keys / half_panel;

// Scratch memory of one call. The queries' gradients of the heads that share keys are summed in f32.
template <typename T>
struct Space {
  using Unit = UnitOf<T>;
  Space(const DeviceHandle& device, int64_t head_dim, int64_t query_rows)
      : width(round_up(head_dim, simd::lanes)),
        keys(workspace(device, block_keys * units<T>(head_dim))),
        values(workspace(device, block_keys * units<T>(head_dim))),
        key_rows(workspace(device, block_keys * width)),
        rows(workspace(device, 2 * panel * width)),
        query_rows(workspace(device, panel * width)),
        dout_rows(workspace(device, panel * width)),
        p(workspace(device, panel * block_keys)),
        ds(workspace(device, panel * block_keys)),
        ds_rows(workspace(device, panel * block_keys)),
        dk(workspace(device, block_keys * width)),
        dv(workspace(device, block_keys * width)),
        dq(workspace(device, query_rows * width)),
        dot_of_out(workspace(device, query_rows)) {}

  int64_t width;
  Tensor keys, values;           // [panels, units of head_dim, panel]: transposed
  Tensor key_rows, rows;         // right operand of dq; copies of left operands
  Tensor query_rows, dout_rows;  // right operands of dk and dv
  Tensor p, ds, ds_rows;         // [panel, block_keys]
  Tensor dk, dv;                 // f32 [block_keys, width]
  Tensor dq;                     // f32 [group * queries, width]
  Tensor dot_of_out;             // f32 [group * queries]: sum(dout * out), called D
};

// One block of keys and values, ready for all queries.
template <typename T>
struct KeyBlock {
  int64_t count;
  Positions<block_keys> positions;
  int32_t smallest[block_halves], largest[block_halves];  // positions in each half panel
  const UnitOf<T>*transposed, *transposed_values;         // [panels, units of head_dim, panel]
  RightOperand<UnitOf<T>> rows;
};

template <typename T>
const UnitOf<T>* transpose_rows(Tensor space, HeadRows<const T> rows, int64_t count, int64_t head_dim,
                                const Tensor& copies) {
  const int64_t depth = units<T>(head_dim);
  for (int64_t row = 0; row < count; row += panel) {
    const int64_t present = std::min(panel, count - row);
    transpose_into_panel(static_cast<UnitOf<T>*>(space.raw()) + row * depth,
                         rows_on_the_left(rows.from(row), present, head_dim, static_cast<UnitOf<T>*>(copies.raw())),
                         present, depth);
  }
  return static_cast<const UnitOf<T>*>(space.raw());
}

template <typename T>
KeyBlock<T> make_key_block(HeadRows<const T> k, HeadRows<const T> v, const int32_t* positions, int64_t count,
                           int64_t head_dim, const Space<T>& space) {
  KeyBlock<T> block{count,
                    {positions, count, INT_MAX},
                    {},
                    {},
                    transpose_rows(space.keys, k, count, head_dim, space.rows),
                    transpose_rows(space.values, v, count, head_dim, space.rows),
                    rows_on_the_right(k, count, head_dim, space.width, static_cast<UnitOf<T>*>(space.key_rows.raw()))};
  for (int64_t half = 0; half < block_halves; ++half) {
    block.smallest[half] = block.positions.smallest(half * half_panel, (half + 1) * half_panel);
    block.largest[half] = block.positions.largest(half * half_panel, (half + 1) * half_panel);
  }
  return block;
}

// One panel of queries of one head.
template <typename T>
struct QueryPanel {
  int64_t count;
  Positions<panel> positions;
  LeftOperand q, dout;
  RightOperand<UnitOf<T>> q_rows, dout_rows;
  float* dq;  // [count, width]
  float log_sum_exp[panel], dot_of_out[panel];
};

// Everything that the heads sharing one head of keys need, in one batch element.
template <typename T>
struct Group {
  HeadRows<const T> q, dout, out, k, v;  // q, dout and out at the group's first head
  HeadRows<T> dq, dk, dv;
  const float* log_sum_exp;
  const int32_t *q_positions, *k_positions;
  int64_t heads, queries, keys, head_dim;
};

template <typename T>
QueryPanel<T> make_query_panel(const Group<T>& of, int64_t head, int64_t first, const Space<T>& space) {
  const int64_t count = std::min(panel, of.queries - first), d = of.head_dim;
  const auto rows = [&](HeadRows<const T> x) {
    return HeadRows<const T>{x.address + first * x.stride + head * d, x.stride};
  };
  const HeadRows<const T> q = rows(of.q), dout = rows(of.dout);
  using Unit = UnitOf<T>;
  Unit* const copies = static_cast<Unit*>(space.rows.raw());
  QueryPanel<T> panel_of{count,
                         {of.q_positions + first, count, INT_MIN},
                         rows_on_the_left(q, count, d, copies),
                         rows_on_the_left(dout, count, d, copies + panel * units<T>(d)),
                         rows_on_the_right(q, count, d, space.width, static_cast<Unit*>(space.query_rows.raw())),
                         rows_on_the_right(dout, count, d, space.width, static_cast<Unit*>(space.dout_rows.raw())),
                         space.dq.template data<float>() + (head * of.queries + first) * space.width,
                         {},
                         {}};
  const int64_t row = head * of.queries + first;
  std::copy_n(of.log_sum_exp + row, count, panel_of.log_sum_exp);
  std::copy_n(space.dot_of_out.template data<float>() + row, count, panel_of.dot_of_out);
  return panel_of;
}

}  // namespace ninefold::attention
