// The losses of the course: both are the negative log likelihood of the target.
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// Of the gradient of a sum of losses, to make it that of their scaled mean.
inline float backward_scale(const Step& step) {
  return static_cast<float>(step.loss_scale) / static_cast<float>(step.global_targets);
}

// Of softmax(logits), fused: the backward turns the logits into their gradient in place.
class CrossEntropyLoss : public Loss {
 public:
  void forward(const Tensor& logits, Saved& saved) override {
    const auto [losses, log_sum_exp] = ops::cross_entropy(logits, saved.step().targets);
    saved.push(logits);
    saved.push(log_sum_exp);
    saved.step().losses = losses;
  }
  Tensor backward(Saved& saved) override {
    const Tensor log_sum_exp = saved.pop(), logits = saved.pop();
    const Step& step = saved.step();
    ops::cross_entropy_backward_(logits, step.targets, log_sum_exp, backward_scale(step));
    return logits;
  }
};

// Of log_softmax(scores), with the log-probabilities kept for whoever asks for accuracy, as in the MNIST example.
class LogSoftmaxNllLoss : public Loss {
 public:
  void forward(const Tensor& scores, Saved& saved) override {
    const Tensor log_probabilities = ops::log_softmax(scores);
    saved.push(log_probabilities);
    saved.step().losses = ops::nll(log_probabilities, saved.step().targets);
  }
  Tensor backward(Saved& saved) override {
    const Step& step = saved.step();
    return ops::log_softmax_nll_backward(saved.pop(), step.targets, backward_scale(step));
  }
};

}  // namespace ninefold
