#include "07_context_parallel/ulysses.h"

#include <numeric>

#include "07_context_parallel/runs.h"

namespace ninefold {
namespace {

// While it lives, the step is that of other rows of the same samples.
class OtherRows {
 public:
  OtherRows(Step& step, const Tensor& positions)
      : step_(step), positions_(std::exchange(step.positions, positions)), rows_(step.rows_per_sample) {
    step.rows_per_sample = positions.size();
  }
  ~OtherRows() {
    step_.positions = positions_;
    step_.rows_per_sample = rows_;
  }
  OtherRows(const OtherRows&) = delete;
  OtherRows& operator=(const OtherRows&) = delete;

 private:
  Step& step_;
  Tensor positions_;
  int64_t rows_;
};

// The ranks' rows follow each other within the block.
std::vector<RowRun> runs_of(int ranks, int64_t rows_of_a_rank, int64_t batch) {
  std::vector<std::vector<int32_t>> places(static_cast<size_t>(ranks));
  int32_t next = 0;
  for (std::vector<int32_t>& of_rank : places) {
    of_rank.resize(static_cast<size_t>(rows_of_a_rank));
    std::iota(of_rank.begin(), of_rank.end(), next);
    next += static_cast<int32_t>(rows_of_a_rank);
  }
  return row_runs(places, batch);
}

Tensor for_messages(const Tensor& like, Shape shape) {
  const MemoryScope scope(*like.device(), MemoryKind::communication);
  return Tensor::empty(like.device(), std::move(shape), like.dtype());
}

}  // namespace

const Tensor& UlyssesAttention::positions_of_block(const Step& step) {
  const int64_t rows = step.rows_per_sample * group_.size();
  if (positions_.defined() && positions_.size() == rows) return positions_;
  const MemoryScope scope(*step.positions.device(), MemoryKind::data);
  positions_ = Tensor::from(step.positions.device(), {rows}, layout_.block_positions(block_, rows * layout_.blocks()));
  return positions_;
}

Tensor UlyssesAttention::to_heads(const Tensor& x, const Step& step) const {
  const int64_t ranks = group_.size(), rows = x.dim(0), width = x.dim(1) / ranks;
  const Tensor leaving = for_messages(x, {ranks * rows, width}), arriving = for_messages(x, {ranks * rows, width});
  for (int64_t rank = 0; rank < ranks; ++rank) {
    ops::copy_columns_(leaving.rows(rank * rows, (rank + 1) * rows), 0, x, rank * width, width);
  }
  group_.all_to_all(arriving, leaving);
  const Tensor heads = Tensor::empty(x.device(), arriving.shape(), x.dtype());
  to_sequences(heads, arriving, runs_of(group_.size(), step.rows_per_sample, rows / step.rows_per_sample));
  return heads;
}

Tensor UlyssesAttention::to_tokens(const Tensor& x, const Step& step) const {
  const int64_t ranks = group_.size(), rows = x.dim(0) / ranks, width = x.dim(1);
  const Tensor leaving = for_messages(x, x.shape()), arriving = for_messages(x, x.shape());
  to_ranks(leaving, x, runs_of(group_.size(), step.rows_per_sample, rows / step.rows_per_sample));
  group_.all_to_all(arriving, leaving);
  const Tensor tokens = Tensor::empty(x.device(), {rows, ranks * width}, x.dtype());
  for (int64_t rank = 0; rank < ranks; ++rank) {
    ops::copy_columns_(tokens, rank * width, arriving.rows(rank * rows, (rank + 1) * rows), 0, width);
  }
  return tokens;
}

Tensor UlyssesAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) {
  Step& step = saved.step();
  const Tensor q_heads = to_heads(q, step), k_heads = to_heads(k, step), v_heads = to_heads(v, step);
  Tensor out;
  {
    const OtherRows rows(step, positions_of_block(step));
    out = inner_->forward(q_heads, k_heads, v_heads, saved);
  }
  return to_tokens(out, step);
}

ops::AttentionGradients UlyssesAttention::backward(const Tensor& dout, Saved& saved) {
  Step& step = saved.step();
  ops::AttentionGradients heads;
  {
    const Tensor dout_heads = to_heads(dout, step);
    const OtherRows rows(step, positions_of_block(step));
    heads = inner_->backward(dout_heads, saved);
  }
  return {to_tokens(heads.dq, step), to_tokens(heads.dk, step), to_tokens(heads.dv, step)};
}

}  // namespace ninefold
