// The gated feed-forward of Llama: w2(silu(w1 x) * w3 x).
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// Slots w1, w3 [hidden, dim] and w2 [dim, hidden]. x [tokens, dim] -> [tokens, dim].
class FeedForward : public Layer {
 public:
  FeedForward(int64_t dim, int64_t hidden, ops::Distribution in_initial, ops::Distribution out_initial);
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override;
  void visit(Visitor& visitor) override;

 private:
  Tensor hidden(const Tensor& x, Saved& saved);
  ops::SwigluGradients hidden_backward(const Tensor& dy, Saved& saved);
  std::unique_ptr<Layer> w1_, w2_, w3_;
};

}  // namespace ninefold
