#include "07_context_parallel/gathered.h"

#include <numeric>

#include "07_context_parallel/runs.h"

namespace ninefold {
namespace {

std::vector<RowRun> runs_of(const SequenceLayout& layout, const Step& step, int64_t rows) {
  std::vector<std::vector<int32_t>> positions;
  for (int rank = 0; rank < layout.ranks; ++rank) {
    positions.push_back(layout.positions(rank, step.rows_per_sample * layout.ranks));
  }
  return row_runs(positions, rows / step.rows_per_sample);
}

}  // namespace

GatheredAttention::Whole GatheredAttention::gather(const Tensor& k, const Tensor& v, const Step& step) const {
  const MemoryScope scope(*k.device(), MemoryKind::communication);
  const std::vector<RowRun> runs = runs_of(layout_, step, k.dim(0));
  const auto gathered = [&](const Tensor& own) {
    const Shape shape = {own.dim(0) * group_.size(), own.dim(1)};
    const Tensor by_ranks = Tensor::empty(own.device(), shape, own.dtype());
    group_.all_gather(by_ranks, own);
    const Tensor whole = Tensor::empty(own.device(), shape, own.dtype());
    to_sequences(whole, by_ranks, runs);
    return whole;
  };
  std::vector<int32_t> positions(static_cast<size_t>(step.rows_per_sample * group_.size()));
  std::iota(positions.begin(), positions.end(), 0);
  const auto length = static_cast<int64_t>(positions.size());
  return {gathered(k), gathered(v), Tensor::from(k.device(), {length}, positions),
          visible_pairs(layout_.positions(group_.rank(), length), positions)};
}

ops::AttentionShape GatheredAttention::shape(const Tensor& q, const Tensor& k, const Whole& all,
                                             const Step& step) const {
  ops::AttentionShape shape = attention_shape(q, k, step, head_dim_);
  shape.visible_pairs = all.visible_pairs;
  return shape;
}

// Summed over the ranks in f32; this rank's rows, of the type of `like`.
Tensor GatheredAttention::scatter(const Tensor& whole, const Tensor& like, const Step& step) const {
  Tensor own;
  {
    const MemoryScope scope(*like.device(), MemoryKind::communication);
    const Tensor by_ranks = Tensor::empty(whole.device(), whole.shape(), Dtype::f32);
    to_ranks(by_ranks, whole, runs_of(layout_, step, like.dim(0)));
    own = Tensor::empty(like.device(), like.shape(), Dtype::f32);
    group_.reduce_scatter(own, by_ranks);
  }
  return ops::cast(own, like.dtype());
}

Tensor GatheredAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) {
  const Step& step = saved.step();
  const auto [out, log_sum_exp] = saved.keep(SavedOperation::attention, [&] {
    const Whole all = gather(k, v, step);
    const auto result = ops::attention_block(q, step.positions, all.k, all.v, all.positions, shape(q, k, all, step));
    return std::array{result.out, result.log_sum_exp};
  });
  for (const Tensor& tensor : {q, k, v, out, log_sum_exp}) saved.push(tensor);
  return out;
}

ops::AttentionGradients GatheredAttention::backward(const Tensor& dout, Saved& saved) {
  const Tensor log_sum_exp = saved.pop(), out = saved.pop(), v = saved.pop(), k = saved.pop(), q = saved.pop();
  const Step& step = saved.step();
  ops::AttentionGradients whole;
  {
    const Whole all = gather(k, v, step);
    const MemoryScope scope(*q.device(), MemoryKind::communication);
    whole = ops::attention_block_backward(dout, q, step.positions, all.k, all.v, all.positions, {out, log_sum_exp},
                                          shape(q, k, all, step));
  }
  whole.dq.book_as(MemoryKind::activations);
  return {whole.dq, scatter(whole.dk, k, step), scatter(whole.dv, v, step)};
}

}  // namespace ninefold
