// Wrong operations, to prove that the check against the serial model fails when it must: each breaks a backward or an
// update in one of the ways real programs do.
#pragma once

#include "common/tensor/kernel_decorator.h"

namespace ninefold {

enum class KernelFault {
  weight_gradient_twice,   // dW = 2 dyᵀ x
  skip_dk,                 // attention: no gradient reaches the keys
  stale_dv,                // attention: the values' gradient of the call before
  lost_residual,           // norms: what flows past them on the residual path is dropped
  lost_norm_weight,        // norms: their weight receives nothing
  rope_not_reversed,       // rotary positions: the backward turns the same way as the forward
  loss_divided_twice,      // the loss gradient divided by two once more
  embedding_gradient_off,  // the embedding's gradient goes to the next token's row
  update_unclipped,        // the optimizer ignores the clipping factor
};
inline constexpr KernelFault all_kernel_faults[] = {KernelFault::weight_gradient_twice,
                                                    KernelFault::skip_dk,
                                                    KernelFault::stale_dv,
                                                    KernelFault::lost_residual,
                                                    KernelFault::lost_norm_weight,
                                                    KernelFault::rope_not_reversed,
                                                    KernelFault::loss_divided_twice,
                                                    KernelFault::embedding_gradient_off,
                                                    KernelFault::update_unclipped};

class FaultyKernels final : public KernelDecorator {
 public:
  FaultyKernels(std::unique_ptr<Kernels> inner, KernelFault fault) : KernelDecorator(std::move(inner)), fault_(fault) {}

  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override {
    inner_->matmul(out, a, b, options);
    if (is(KernelFault::weight_gradient_twice) && options.transpose_a) inner_->scale(out, 2);
  }

  void attention_block_backward(const ops::AttentionGradients& out, const Tensor& dout, const Tensor& q,
                                const Tensor& q_positions, const Tensor& k, const Tensor& v, const Tensor& k_positions,
                                const ops::Attention& forward, const ops::AttentionShape& shape) override {
    inner_->attention_block_backward(out, dout, q, q_positions, k, v, k_positions, forward, shape);
    if (is(KernelFault::skip_dk)) inner_->fill(out.dk, 0);
    if (!is(KernelFault::stale_dv)) return;
    const Tensor fresh = Tensor::empty(out.dv.device(), out.dv.shape(), out.dv.dtype());
    inner_->copy(fresh, out.dv);
    if (before_.defined()) inner_->copy(out.dv, before_);
    before_ = fresh;
  }

  void rms_norm_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& residual,
                         const Tensor& weight, const Tensor& inverse_deviation, const Tensor& dsum,
                         const Tensor& dweight) override {
    const Tensor lost = Tensor::zeros(dweight.device(), dweight.shape(), dweight.dtype());
    inner_->rms_norm_backward(dx, dy, x, residual, weight, inverse_deviation,
                              is(KernelFault::lost_residual) ? Tensor() : dsum,
                              is(KernelFault::lost_norm_weight) ? lost : dweight);
  }

  void rope(const Tensor& x, const Tensor& positions, int64_t head_dim, double theta,
            ops::RopeDirection direction) override {
    inner_->rope(x, positions, head_dim, theta,
                 is(KernelFault::rope_not_reversed) ? ops::RopeDirection::forward : direction);
  }

  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp,
                              float scale) override {
    inner_->cross_entropy_backward(logits, targets, log_sum_exp,
                                   is(KernelFault::loss_divided_twice) ? scale / 2 : scale);
  }

  void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy) override {
    if (!is(KernelFault::embedding_gradient_off)) return inner_->embedding_backward(dtable, tokens, dy);
    std::vector<int32_t> moved = tokens.to_vector<int32_t>();
    for (int32_t& token : moved) token = static_cast<int32_t>((token + 1) % dtable.dim(0));
    inner_->embedding_backward(dtable, Tensor::from(tokens.device(), tokens.shape(), moved), dy);
  }

  void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const ops::Adamw& settings) override {
    ops::UpdateTensors used = update;
    if (is(KernelFault::update_unclipped)) used.gradient_scale = 1;
    inner_->adamw(used, exp_avg, exp_avg_sq, settings);
  }

 private:
  bool is(KernelFault fault) const { return fault_ == fault; }
  KernelFault fault_;
  Tensor before_;
};

}  // namespace ninefold
