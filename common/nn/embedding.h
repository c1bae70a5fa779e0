// A table of one row a token.
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// weight [vocabulary, features]. tokens i32 [n] -> [n, features]. Tokens have no gradient: backward returns undefined.
class Embedding : public Layer {
 public:
  Embedding(int64_t vocabulary, int64_t features, ops::Distribution initial)
      : weight({vocabulary, features}, initial) {}

  Tensor forward(const Tensor& tokens, Saved& saved) override {
    saved.push(tokens);
    return ops::embedding(tokens, weight.value);
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    saved.add_weight_gradients([this, dy, tokens = saved.pop()] {
      weight.add_gradient([&](const Tensor& dtable) { ops::embedding_backward(dtable, tokens, dy); });
    });
    return {};
  }
  void visit(Visitor& visitor) override { visitor.parameter("weight", weight); }

  Parameter weight;
};

}  // namespace ninefold
