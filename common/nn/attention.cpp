#include "common/nn/attention.h"

#include "common/nn/linear.h"

namespace ninefold {

using ops::RopeDirection;

ops::AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Step& step, int64_t head_dim) {
  return {.batch = q.dim(0) / step.rows_per_sample,
          .heads = q.dim(1) / head_dim,
          .kv_heads = k.dim(1) / head_dim,
          .head_dim = head_dim};
}

Tensor PlainAttention::forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) {
  const Tensor& positions = saved.step().positions;
  const auto [out, log_sum_exp] = saved.keep(SavedOperation::attention, [&] {
    const auto result =
        ops::attention_block(q, positions, k, v, positions, attention_shape(q, k, saved.step(), head_dim_));
    return std::array{result.out, result.log_sum_exp};
  });
  for (const Tensor& tensor : {q, k, v, out, log_sum_exp}) saved.push(tensor);
  return out;
}

ops::AttentionGradients PlainAttention::backward(const Tensor& dout, Saved& saved) {
  const Tensor log_sum_exp = saved.pop(), out = saved.pop(), v = saved.pop(), k = saved.pop(), q = saved.pop();
  const Tensor& positions = saved.step().positions;
  return ops::attention_block_backward(dout, q, positions, k, v, positions, {out, log_sum_exp},
                                       attention_shape(q, k, saved.step(), head_dim_));
}

Attention::Attention(const AttentionConfig& config)
    : wq_(std::make_unique<Linear>(config.dim, config.heads * config.head_dim(), config.in_initial)),
      wk_(std::make_unique<Linear>(config.dim, config.kv_heads * config.head_dim(), config.in_initial)),
      wv_(std::make_unique<Linear>(config.dim, config.kv_heads * config.head_dim(), config.in_initial)),
      wo_(std::make_unique<Linear>(config.heads * config.head_dim(), config.dim, config.out_initial)),
      core_(std::make_unique<PlainAttention>(config.head_dim())),
      rope_frequencies_(config.rope_frequencies) {}

Tensor Attention::forward(const Tensor& x, Saved& saved) {
  const Tensor q = saved.own(wq_->forward(x, saved));
  const Tensor k = saved.own(wk_->forward(x, saved));
  const Tensor v = wv_->forward(x, saved);
  for (const Tensor& rotated : {q, k}) {
    ops::rope_(rotated, saved.step().positions, rope_frequencies_, RopeDirection::forward);
  }
  return wo_->forward(core_->forward(q, k, v, saved), saved);
}

Tensor Attention::backward(const Tensor& dy, Saved& saved) {
  const auto [dq, dk, dv] = core_->backward(wo_->backward(dy, saved), saved);
  for (const Tensor& rotated : {dq, dk}) {
    ops::rope_(rotated, saved.step().positions, rope_frequencies_, RopeDirection::backward);
  }
  Tensor dx = wv_->backward(dv, saved);
  wk_->backward_add(dk, saved, dx);
  wq_->backward_add(dq, saved, dx);
  return dx;
}

void Attention::visit(Visitor& visitor) {
  visitor.slot("wq", wq_);
  visitor.slot("wk", wk_);
  visitor.slot("wv", wv_);
  visitor.core("core", core_);
  visitor.slot("wo", wo_);
}

}  // namespace ninefold
