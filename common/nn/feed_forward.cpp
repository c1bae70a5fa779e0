#include "common/nn/feed_forward.h"

#include "common/nn/linear.h"

namespace ninefold {

FeedForward::FeedForward(int64_t dim, int64_t hidden, ops::Distribution in_initial, ops::Distribution out_initial)
    : w1_(std::make_unique<Linear>(dim, hidden, in_initial)),
      w2_(std::make_unique<Linear>(hidden, dim, out_initial)),
      w3_(std::make_unique<Linear>(dim, hidden, in_initial)) {}

Tensor FeedForward::hidden(const Tensor& x, Saved& saved) {
  const Tensor gate = w1_->forward(x, saved);
  const Tensor up = w3_->forward(x, saved);
  saved.push(gate);
  saved.push(up);
  return ops::swiglu(gate, up);
}

Tensor FeedForward::forward(const Tensor& x, Saved& saved) { return w2_->forward(hidden(x, saved), saved); }

void FeedForward::forward_add(const Tensor& x, Saved& saved, const Tensor& sum) {
  w2_->forward_add(hidden(x, saved), saved, sum);
}

// A function of its own so that dhidden, gate and up are gone before w3 and w1 need memory.
ops::SwigluGradients FeedForward::hidden_backward(const Tensor& dy, Saved& saved) {
  const Tensor dhidden = w2_->backward(dy, saved);
  const Tensor up = saved.pop(), gate = saved.pop();
  return ops::swiglu_backward(dhidden, gate, up);
}

Tensor FeedForward::backward(const Tensor& dy, Saved& saved) {
  const auto [dgate, dup] = hidden_backward(dy, saved);
  Tensor dx = w3_->backward(dup, saved);
  w1_->backward_add(dgate, saved, dx);
  return dx;
}

void FeedForward::visit(Visitor& visitor) {
  visitor.slot("w1", w1_);
  visitor.slot("w3", w3_);
  visitor.slot("w2", w2_);
}

}  // namespace ninefold
