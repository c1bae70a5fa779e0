// The communications that tensor parallelism is made of (Shoeybi et al. 2019, Megatron-LM, arXiv 1909.08053;
// Korthikanti et al. 2022, sequence parallelism, arXiv 2205.05198). They come in conjugate pairs: what takes
// activations one way in the forward takes their gradients the other way in the backward, and the transpose of a sum is
// a copy.
//
//   copy             forward: identity         backward: all_reduce        Megatron's f
//   reduce           forward: all_reduce       backward: identity          Megatron's g
//   gather_rows      forward: all_gather       backward: reduce_scatter    Megatron's g with sequence parallelism
//   scatter_rows     forward: reduce_scatter   backward: all_gather        and its conjugate
//   gather_columns   forward: all_gather       backward: own columns
//   scatter_columns  forward: own columns      backward: all_gather
//   whole_rows       forward: all_gather       backward: own rows          around what every rank computes alike
//   own_rows         forward: own rows         backward: all_gather        and its conjugate
#pragma once

#include <string_view>

#include "05_tensor_parallel/layout.h"
#include "common/comm/group.h"
#include "common/tensor/ops.h"

namespace ninefold {

enum class Conjugate {
  none,
  copy,
  reduce,
  gather_rows,
  scatter_rows,
  gather_columns,
  scatter_columns,
  whole_rows,
  own_rows
};

// The collectives that it calls; "" where it calls none.
struct ConjugateOperations {
  std::string_view forward, backward;
};
ConjugateOperations operations_of(Conjugate conjugate);

// What brings a layer the input that it computes with: all features (from Replicate or rows), or columns (from
// Replicate or columns).
Conjugate whole_input_conjugate(Layout from);
Conjugate columns_input_conjugate(Layout from);
// What brings a layer's result to the layout that is wanted: from columns (to columns or Replicate), or from partial
// sums, which every rank has one of (to rows or Replicate).
Conjugate columns_conjugate(Layout to);
Conjugate partial_sum_conjugate(Layout to);

// One end of a layer: a conjugate pair over a group. `features` is the width of the whole matrix where columns are
// gathered or cut; the last rank's may be padded. `in_pieces`: rows are gathered and reduced piece by piece, beside the
// matmul that needs or makes them (pieces.h).
class LayerEnd {
 public:
  LayerEnd(Conjugate conjugate, const Group& group, int64_t features, bool in_pieces = false)
      : conjugate_(conjugate), group_(group), features_(features), in_pieces_(in_pieces) {}

  const Group& group() const { return group_; }
  // Whether a rank has a part of the rows on the outer side.
  bool divides_rows() const { return conjugate_ == Conjugate::gather_rows || conjugate_ == Conjugate::scatter_rows; }
  // Whether the matmul beside it is to be cut.
  bool in_pieces() const { return in_pieces_ && divides_rows(); }

  // `reduce` writes into x, which must be nobody else's; the others return x itself or a new tensor.
  Tensor forward(const Tensor& x) const;
  // forward(x) into `y`, which is there when the result is waited for.
  Pending start_forward(const Tensor& x, Tensor& y) const;
  // `copy` writes into dy.
  Tensor backward(const Tensor& dy) const;

 private:
  Conjugate conjugate_;
  Group group_;
  int64_t features_;
  bool in_pieces_;
};

// The features that this rank holds of so many, in columns of equal width; the last ranks' end in padding.
struct OwnColumns {
  int64_t first, count, width;
};
OwnColumns own_columns(const Group& group, int64_t features);

// x [n, f] of rank 0, 1, … one below the other: [ranks * n, f].
Tensor all_gather_rows(const Group& group, const Tensor& x);
// This rank's block of rows of the sum of every rank's x [n, f]: [n / ranks, f].
Tensor reduce_scatter_rows(const Group& group, const Tensor& x);
// x [n, w] of rank 0, 1, … side by side, cut to the first `features`: [n, features].
Tensor all_gather_columns(const Group& group, const Tensor& x, int64_t features);
// This rank's block of rows of x [n, f]: [n / ranks, f].
Tensor own_rows(const Group& group, const Tensor& x);
// This rank's columns of x [n, f], of width ceil(f / ranks), padded with zeros.
Tensor own_columns(const Group& group, const Tensor& x);

}  // namespace ninefold
