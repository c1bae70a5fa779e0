// Causal grouped-query attention with rotary positions.
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// What happens between the projections: the only part, with the positions, that knows how a sequence is laid out.
class AttentionCore {
 public:
  virtual ~AttentionCore() = default;
  // q [tokens, heads * head_dim], k and v [tokens, kv_heads * head_dim], rotated; returns [tokens, heads * head_dim].
  virtual Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) = 0;
  virtual ops::AttentionGradients backward(const Tensor& dout, Saved& saved) = 0;
  virtual int64_t head_dim() const = 0;
};

// That of attention among the rows of a step, however many heads q and k have.
ops::AttentionShape attention_shape(const Tensor& q, const Tensor& k, const Step& step, int64_t head_dim);

// All keys are here: one attention block.
class PlainAttention : public AttentionCore {
 public:
  explicit PlainAttention(int64_t head_dim) : head_dim_(head_dim) {}
  Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) override;
  ops::AttentionGradients backward(const Tensor& dout, Saved& saved) override;
  int64_t head_dim() const override { return head_dim_; }

 private:
  int64_t head_dim_;
};

struct AttentionConfig {
  int64_t dim, heads, kv_heads;
  std::vector<double> rope_frequencies;       // as ops::rope_ takes them
  ops::Distribution in_initial, out_initial;  // of wq, wk, wv and of wo
  int64_t head_dim() const { return dim / heads; }
};

// Slots wq, wk, wv, core, wo. x [tokens, dim] -> [tokens, dim]. The number of heads here follows from the width that
// wq, wk and wv give, so that a rank may hold some of them only.
class Attention : public Layer {
 public:
  explicit Attention(const AttentionConfig& config);
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void visit(Visitor& visitor) override;

 private:
  std::unique_ptr<Layer> wq_, wk_, wv_, wo_;
  std::unique_ptr<AttentionCore> core_;
  std::vector<double> rope_frequencies_;
};

}  // namespace ninefold
