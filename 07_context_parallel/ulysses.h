// DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509): before attention the ranks exchange tokens for heads, so
// that each has all tokens of some heads, and after it back again. What runs in between is another core, which never
// notices: the plain one, or a ring between groups of such ranks (Fang, Zhao 2024, USP, arXiv 2405.07719).
#pragma once

#include <memory>

#include "07_context_parallel/layout.h"
#include "common/comm/group.h"
#include "common/nn/attention.h"

namespace ninefold {

// forward: all_to_all of q, k, v, and of out   backward: all_to_all of dout, and of dq, dk, dv
class UlyssesAttention : public AttentionCore {
 public:
  // The ranks of `group` hold the parts of one block of `layout`, which is the one at `block`.
  UlyssesAttention(std::unique_ptr<AttentionCore> inner, const Group& group, const SequenceLayout& layout, int block)
      : inner_(std::move(inner)), group_(group), layout_(layout), block_(block) {}
  Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) override;
  ops::AttentionGradients backward(const Tensor& dout, Saved& saved) override;
  int64_t head_dim() const override { return inner_->head_dim(); }

 private:
  // x [batch · rows of a rank, all heads] <-> [batch · rows of the block, heads of this rank]
  Tensor to_heads(const Tensor& x, const Step& step) const;
  Tensor to_tokens(const Tensor& x, const Step& step) const;
  const Tensor& positions_of_block(const Step& step);
  std::unique_ptr<AttentionCore> inner_;
  Group group_;
  SequenceLayout layout_;
  int block_;
  Tensor positions_;
};

}  // namespace ninefold
