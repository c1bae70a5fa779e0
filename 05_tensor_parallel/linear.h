// Linear layers whose weight is divided over the ranks of a group. y = x Wᵀ + b can be cut in two ways:
//   by output features   every rank computes some columns of y from all of x
//   by input features    every rank computes a partial sum of all of y from some columns of x
// The second takes what the first gives: two linear layers, and whatever works on single features between them, need
// communication at their ends only. Layers that multiply in 8 bits also share a number for each tensor that the ranks
// hold parts of (f8.h), and rows of it are gathered in bytes; sums over the ranks are as wide as the others'.
#pragma once

#include "05_tensor_parallel/prepared_input.h"
#include "common/nn/linear.h"

namespace ninefold {

// Rank r holds the r-th block of rows of W [out, in] and of b.
// Input Replicate: forward: identity     backward: all_reduce        output Shard(1):  nothing
//       Shard(0):  forward: all_gather   backward: reduce_scatter           Replicate: forward: all_gather
class ColumnParallelLinear : public Layer {
 public:
  ColumnParallelLinear(std::unique_ptr<Linear> linear, const LayerEnd& input, const LayerEnd& output)
      : linear_(std::move(linear)), input_(input), output_(output) {}

  // A layer around this one and others brings them their input whole, and takes its gradient back.
  void use(PreparedInput& prepared) {
    prepared_ = &prepared;
    prepared.add_user(this, linear_->in_f8);
  }

  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) override;
  void visit(Visitor& visitor) override { linear_->visit(visitor); }

 private:
  const LayerEnd& input_end() const { return prepared_ ? prepared_->end() : input_; }
  Operand own_input(const Tensor& x) const;
  Tensor apply(const Operand& own) const;
  Operand own_gradient(const Tensor& dy) const;
  std::unique_ptr<Linear> linear_;
  LayerEnd input_, output_;
  PreparedInput* prepared_ = nullptr;
};

// Rank r holds the r-th block of columns of W [out, in], and all of b, which is added to the sum.
// Input Shard(1):  nothing                    output Replicate: forward: all_reduce       backward: identity
//       Replicate: backward: all_gather              Shard(0):  forward: reduce_scatter   backward: all_gather
class RowParallelLinear : public Layer {
 public:
  RowParallelLinear(std::unique_ptr<Linear> linear, const LayerEnd& input, const LayerEnd& output)
      : linear_(std::move(linear)), input_(input), output_(output) {}

  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void visit(Visitor& visitor) override { linear_->visit(visitor); }

 private:
  Operand own_input(const Tensor& x) const;
  Operand whole_gradient(const Tensor& dy) const;
  std::unique_ptr<Linear> linear_;
  LayerEnd input_, output_;
};

}  // namespace ninefold
