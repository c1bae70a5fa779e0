// A table of one row a token, and the output layer that uses the same table (Press, Wolf 2016, arXiv 1608.05859).
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

// logits = x · tableᵀ, with the table of an embedding, which must outlive it. x [n, features] -> [n, vocabulary].
class TiedOutput : public Layer {
 public:
  explicit TiedOutput(Parameter& table) : table_(table) { ++table.users; }

  Tensor forward(const Tensor& x, Saved& saved) override {
    saved.push(x);
    return saved.keep(SavedOperation::matmul, [&] { return ops::matmul(x, table_.value, {.transpose_b = true}); });
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    saved.add_weight_gradients([this, dy, x = saved.pop()] {
      table_.write_gradient([&](const Tensor& dtable, bool accumulate) {
        ops::matmul_into(dtable, dy, x, {.transpose_a = true, .accumulate = accumulate});
      });
    });
    return ops::matmul(dy, table_.value);
  }
  void visit(Visitor& visitor) override { visitor.tied("weight", table_); }

 private:
  Parameter& table_;
};

}  // namespace ninefold
