// The input that several column-parallel layers share (wq, wk and wv of an attention; w1 and w3 of a feed-forward):
// brought to all ranks once for all of them, its gradient taken back once.
#pragma once

#include "05_tensor_parallel/conjugates.h"
#include "common/nn/layer.h"

namespace ninefold {

// Wraps the layer around them. Replicate: forward: identity     backward: all_reduce
//                              Shard(0):  forward: all_gather   backward: all_gather of the input again, reduce_scatter
// Only its own block of rows is kept for the backward: that saves (n-1)/n of the bytes and costs the second all_gather.
class PreparedInput : public Layer {
 public:
  PreparedInput(std::unique_ptr<Layer> inner, const LayerEnd& end) : inner_(std::move(inner)), end_(end) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    own_ = x;
    return inner_->forward(end_.forward(x), saved);
  }
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override {
    own_ = x;
    inner_->forward_add(end_.forward(x), saved, sum);
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    const Tensor dx = inner_->backward(dy, saved);
    whole_ = Tensor();
    return end_.backward(dx);
  }
  void visit(Visitor& visitor) override { inner_->visit(visitor); }

  // The last of the layers that share the input keeps it for all of them, because its backward is the first.
  void keep(Saved& saved) { saved.push(std::exchange(own_, Tensor())); }
  // All rows, for the backward of those layers.
  const Tensor& whole(Saved& saved) {
    if (!whole_.defined()) whole_ = end_.forward(saved.pop());
    return whole_;
  }

 private:
  std::unique_ptr<Layer> inner_;
  LayerEnd end_;
  Tensor own_, whole_;  // while the wrapped layer's forward, or backward, runs
};

}  // namespace ninefold
