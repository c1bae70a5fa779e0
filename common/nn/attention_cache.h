// Attention for generating text: keys and values of the tokens before are kept, so that a new token computes its own
// only.
#pragma once

#include "common/nn/attention.h"

namespace ninefold {

// Stands for the attention core of one layer and one sequence. Forward only.
class CachedAttention : public AttentionCore {
 public:
  explicit CachedAttention(int64_t head_dim) : head_dim_(head_dim) {}

  // The rows are those that follow the rows of all calls before; their positions are in saved.step().
  Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) override;
  ops::AttentionGradients backward(const Tensor& dout, Saved& saved) override;
  int64_t head_dim() const override { return head_dim_; }

 private:
  int64_t head_dim_;
  int64_t length_ = 0;    // rows kept
  Tensor keys_, values_;  // [capacity, kv_heads * head_dim]
};

}  // namespace ninefold
