// Attention with all keys and values gathered before it, as Llama 3 was trained (Grattafiori et al. 2024, arXiv
// 2407.21783, 3.3.2): simple, and nothing is hidden. What is gathered lives for a moment; the backward gathers again.
#pragma once

#include "07_context_parallel/layout.h"
#include "common/comm/group.h"
#include "common/nn/attention.h"

namespace ninefold {

// forward: all_gather of k, v   backward: all_gather of k, v, reduce_scatter of dk, dv in f32
class GatheredAttention : public AttentionCore {
 public:
  GatheredAttention(const Group& group, const SequenceLayout& layout, int64_t head_dim)
      : group_(group), layout_(layout), head_dim_(head_dim) {}
  // The step's positions are those of this rank.
  Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) override;
  ops::AttentionGradients backward(const Tensor& dout, Saved& saved) override;
  int64_t head_dim() const override { return head_dim_; }

 private:
  struct Whole {
    Tensor k, v, positions;  // of whole sequences, in order
    int64_t visible_pairs;   // of a sequence's queries here with these keys
  };
  Whole gather(const Tensor& k, const Tensor& v, const Step& step) const;
  ops::AttentionShape shape(const Tensor& q, const Tensor& k, const Whole& all, const Step& step) const;
  Tensor scatter(const Tensor& whole, const Tensor& like, const Step& step) const;
  Group group_;
  SequenceLayout layout_;
  int64_t head_dim_;
};

}  // namespace ninefold
