// A layer that every rank of a group computes alike, on all rows, where rows are divided before and behind it: a
// mixture of experts, whose router needs whole sequences.
#pragma once

#include "05_tensor_parallel/conjugates.h"
#include "common/nn/layer.h"

namespace ninefold {

// Shard(0):  forward: all_gather, own rows   backward: all_gather, own rows
// Replicate: nothing
class WholeRows : public Layer {
 public:
  WholeRows(std::unique_ptr<Layer> inner, const LayerEnd& input, const LayerEnd& output)
      : inner_(std::move(inner)), input_(input), output_(output) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    const Tensor y = inner_->forward(input_.forward(x), saved);
    return saved.results_needed() ? output_.forward(y) : y;
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    return input_.backward(inner_->backward(output_.backward(dy), saved));
  }
  void visit(Visitor& visitor) override { inner_->visit(visitor); }

 private:
  std::unique_ptr<Layer> inner_;
  LayerEnd input_, output_;
};

}  // namespace ninefold
