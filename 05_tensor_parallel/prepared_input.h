// The input that several column-parallel layers share (wq, wk and wv of an attention; w1 and w3 of a feed-forward):
// brought to all ranks once for all of them, its gradient taken back once.
#pragma once

#include "05_tensor_parallel/f8.h"
#include "05_tensor_parallel/pieces.h"
#include "common/nn/layer.h"

namespace ninefold {

// Wraps the layer around them. Replicate: forward: identity     backward: all_reduce
//                              Shard(0):  forward: all_gather   backward: all_gather of the input again, reduce_scatter
// Where they multiply in 8 bits, it rounds the input for all of them, and gathers, and keeps, a byte an element.
// Only its own block of rows is kept for the backward: that saves (n-1)/n of the bytes and costs the second all_gather.
// The first of its users to compute brings the input, for all of them; where a forward that is run again finds its
// results saved, nobody does.
class PreparedInput : public Layer {
 public:
  PreparedInput(std::unique_ptr<Layer> inner, const LayerEnd& end) : inner_(std::move(inner)), end_(end) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    own_ = rounded(x);
    return inner_->forward(x, saved);
  }
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override {
    own_ = rounded(x);
    inner_->forward_add(x, saved, sum);
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    const Tensor dx = inner_->backward(dy, saved);
    whole_ = {};
    if (!last_term_) return end_.backward(dx);
    return reduce_in_pieces(end_.group(), dx.dim(0), std::exchange(last_term_, nullptr));
  }
  void visit(Visitor& visitor) override { inner_->visit(visitor); }

  // The layers that share the input, in forward order; all of them multiply in 8 bits, or none.
  void add_user(const Layer* user, bool in_f8) {
    if (!first_user_) first_user_ = user;
    last_user_ = user;
    in_f8_ = in_f8;
  }
  bool is_first_user(const Layer* user) const { return user == first_user_; }
  // The last one keeps the input for all of them, because its backward is the first.
  bool is_last_user(const Layer* user) const { return user == last_user_; }
  void keep(Saved& saved) { push(saved, std::exchange(own_, {})); }

  const LayerEnd& end() const { return end_; }
  // This rank's rows, in the forward.
  const Operand& own() const { return own_; }
  // All rows: undefined until a user has brought them; the last user of the forward drops them.
  Operand& whole() { return whole_; }
  // The last term of the input's gradient, by rows, where the sum over the ranks is to overlap with it.
  void add_in_pieces(std::function<Tensor(int64_t begin, int64_t end)> term) { last_term_ = std::move(term); }

 private:
  Operand rounded(const Tensor& x) const {
    return in_f8_ ? round_to_f8(x, Dtype::f8_e4m3, largest_of_rows(end_)) : Operand{x};
  }

  std::unique_ptr<Layer> inner_;
  LayerEnd end_;
  const Layer *first_user_ = nullptr, *last_user_ = nullptr;
  bool in_f8_ = false;
  Operand own_, whole_;  // while the wrapped layer's forward, or backward, runs
  std::function<Tensor(int64_t, int64_t)> last_term_;
};

}  // namespace ninefold
