// Wrong operations, to prove that the check against the serial model fails when it must: each breaks a backward or an
// update in one of the ways real programs do.
#pragma once

#include <map>
#include <vector>

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
  convolution_dx_lost,     // convolution: no gradient reaches what lies below
  convolution_dw_twice,    // convolution: twice the weight's gradient
  pool_index_off,          // max-pool: the gradient goes to the window's next element
  dropout_redrawn,         // dropout: the backward draws another mask
  relu_mask_ignored,       // relu: the gradient passes where the output is zero
  expert_gradient_twice,   // experts: twice the weights' gradients
  expert_gradient_lost,    // experts: the weights of the last one receive nothing
  gate_gradient_lost,      // experts: the router does not learn from its gates
  gates_ignored,           // experts: results are added up as if all gates were one
};
inline const std::vector<KernelFault> llama_faults = {KernelFault::weight_gradient_twice,
                                                      KernelFault::skip_dk,
                                                      KernelFault::stale_dv,
                                                      KernelFault::lost_residual,
                                                      KernelFault::lost_norm_weight,
                                                      KernelFault::rope_not_reversed,
                                                      KernelFault::loss_divided_twice,
                                                      KernelFault::embedding_gradient_off,
                                                      KernelFault::update_unclipped};
inline const std::vector<KernelFault> moe_faults = {KernelFault::expert_gradient_twice,
                                                    KernelFault::expert_gradient_lost, KernelFault::gate_gradient_lost,
                                                    KernelFault::gates_ignored};
inline const std::vector<KernelFault> mnist_cnn_faults = {
    KernelFault::weight_gradient_twice, KernelFault::loss_divided_twice, KernelFault::convolution_dx_lost,
    KernelFault::convolution_dw_twice,  KernelFault::pool_index_off,     KernelFault::dropout_redrawn,
    KernelFault::relu_mask_ignored};

class FaultyKernels final : public KernelDecorator {
 public:
  FaultyKernels(std::unique_ptr<Kernels> inner, KernelFault fault) : KernelDecorator(std::move(inner)), fault_(fault) {}

  void matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) override {
    inner_->matmul(out, a, b, options);
    if (is(KernelFault::weight_gradient_twice) && options.transpose_a) inner_->scale(out, 2);
  }

  void grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                      const ops::MatmulOptions& options) override {
    inner_->grouped_matmul(out, a, b, counts, options);
    if (!options.transpose_a) return;
    const int64_t each = out.dim(1) * out.dim(2);
    if (is(KernelFault::expert_gradient_twice)) inner_->scale(out, 2);
    if (is(KernelFault::expert_gradient_lost)) inner_->fill(out.slice(out.size() - each, {each}), 0);
  }
  void add_weighted_rows(const Tensor& sum, const Tensor& rows, const Tensor& index, const Tensor& weights) override {
    inner_->add_weighted_rows(sum, rows, index, is(KernelFault::gates_ignored) ? Tensor() : weights);
  }
  void weighted_rows_backward(const ops::WeightedRowsGradients& out, const Tensor& dy, const Tensor& rows,
                              const Tensor& index, const Tensor& weights) override {
    inner_->weighted_rows_backward(out, dy, rows, index, weights);
    if (is(KernelFault::gate_gradient_lost)) inner_->fill(out.dweights, 0);
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

  void rope(const Tensor& x, const Tensor& positions, const std::vector<double>& frequencies,
            ops::RopeDirection direction) override {
    inner_->rope(x, positions, frequencies,
                 is(KernelFault::rope_not_reversed) ? ops::RopeDirection::forward : direction);
  }

  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& log_sum_exp, float scale,
                              const std::optional<ops::VocabularyPart>& part) override {
    inner_->cross_entropy_backward(logits, targets, log_sum_exp,
                                   is(KernelFault::loss_divided_twice) ? scale / 2 : scale, part);
  }

  void log_softmax_nll_backward(const Tensor& dx, const Tensor& log_probabilities, const Tensor& targets,
                                float scale) override {
    inner_->log_softmax_nll_backward(dx, log_probabilities, targets,
                                     is(KernelFault::loss_divided_twice) ? scale / 2 : scale);
  }

  void embedding_backward(const Tensor& dtable, const Tensor& tokens, const Tensor& dy,
                          const std::optional<ops::VocabularyPart>& part) override {
    if (!is(KernelFault::embedding_gradient_off)) return inner_->embedding_backward(dtable, tokens, dy, part);
    std::vector<int32_t> moved = tokens.to_vector<int32_t>();
    for (int32_t& token : moved) token = static_cast<int32_t>((token + 1) % dtable.dim(0));
    inner_->embedding_backward(dtable, Tensor::from(tokens.device(), tokens.shape(), moved), dy, part);
  }

  void adamw(const ops::UpdateTensors& update, const Tensor& exp_avg, const Tensor& exp_avg_sq,
             const ops::Adamw& settings) override {
    ops::UpdateTensors used = update;
    if (is(KernelFault::update_unclipped)) used.gradient_scale = 1;
    inner_->adamw(used, exp_avg, exp_avg_sq, settings);
  }

  void convolution_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& weight,
                            const Tensor& dweight, const Tensor& dbias) override {
    inner_->convolution_backward(dx, dy, x, weight, dweight, dbias);
    if (is(KernelFault::convolution_dx_lost) && dx.defined()) inner_->fill(dx, 0);
    if (is(KernelFault::convolution_dw_twice)) inner_->scale(dweight, 2);
  }

  void max_pool_backward(const Tensor& dx, const Tensor& dy, const Tensor& index) override {
    if (!is(KernelFault::pool_index_off)) return inner_->max_pool_backward(dx, dy, index);
    std::vector<int32_t> moved = index.to_vector<int32_t>();
    for (int32_t& place : moved) place = (place + 1) % 4;
    inner_->max_pool_backward(dx, dy, Tensor::from(index.device(), index.shape(), moved));
  }

  void dropout(const Tensor& y, const Tensor& x, float probability, const ops::DropoutKey& key) override {
    ops::DropoutKey used = key;
    bool& is_backward = dropout_is_open_[key.layer];  // each forward is followed by its backward
    if (is(KernelFault::dropout_redrawn) && is_backward) ++used.seed;
    is_backward = !is_backward;
    inner_->dropout(y, x, probability, used);
  }

  void relu_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) override {
    is(KernelFault::relu_mask_ignored) ? inner_->copy(dx, dy) : inner_->relu_backward(dx, dy, y);
  }

 private:
  bool is(KernelFault fault) const { return fault_ == fault; }
  KernelFault fault_;
  Tensor before_;                            // of stale_dv
  std::map<int64_t, bool> dropout_is_open_;  // by layer
};

}  // namespace ninefold
