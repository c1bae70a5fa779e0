// Ring attention (Liu, Zaharia, Abbeel 2023, arXiv 2310.01889): every rank keeps its queries, and the keys and values
// of all ranks come by, one block a step. What a step computes is merged into what the steps before it did, weighted by
// log-sum-exp. In the backward the gradients of keys and values travel with their blocks, and one hop further: home.
//
//   step            0        1        2        3             rank r of 4
//   keys of rank    r        r-1      r-2      r-3           sent on to r+1 while the step computes
//   dk, dv of rank  r: kept  r-1      r-2      r-3, then r   each rank adds its part, and sends the sum on
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "07_context_parallel/layout.h"
#include "common/comm/group.h"
#include "common/nn/attention.h"

namespace ninefold {

struct RingOptions {
  // Blocks travel while the one before is computed; otherwise before it.
  bool overlap = true;
  // In which the parts of attention's result are added up, however they are computed: f32, or bf16, which rounds in
  // every step.
  Dtype merge = Dtype::f32;
};

// A ring of ranks, shared by the layers that use it.
class Ring {
 public:
  // The blocks of `layout` are the ranks of `group`.
  Ring(const Group& group, const SequenceLayout& layout, const RingOptions& options)
      : group_(group), layout_(layout), options_(options) {}

  // Two tensors: keys and values, or their gradients.
  using Pair = std::array<Tensor, 2>;

  // What leaves for the rank after this one, and what arrives of it from the one before.
  class Passing {
   public:
    Passing() = default;  // nothing
    Passing(const Group& group, const Pair& leaving, int tag);
    // Returns when all has left and arrived.
    void settle();
    // The same, and returns what has arrived; undefined tensors where nothing is passed.
    Pair wait();

   private:
    Pair arriving_;
    std::vector<Pending> pending_;
  };
  Passing pass_keys(const Pair& keys_and_values) const { return pass(keys_and_values, 0); }
  Passing pass_gradients(const Pair& gradients) const { return pass(gradients, 1); }

  // What this rank does for sequences of `length`, and the positions of all blocks, i32, on `device`.
  struct Course {
    int64_t length = 0;
    std::vector<RingStep> steps;
    std::vector<Tensor> positions;
  };
  const Course& course(int64_t length, const DeviceHandle& device);
  int size() const { return group_.size(); }
  const RingOptions& options() const { return options_; }

 private:
  Passing pass(const Pair& leaving, int tag) const;
  Group group_;
  SequenceLayout layout_;
  RingOptions options_;
  Course course_;
};

// forward: keys and values around the ring   backward: the same again, their gradients with them
class RingAttention : public AttentionCore {
 public:
  RingAttention(std::shared_ptr<Ring> ring, int64_t head_dim) : ring_(std::move(ring)), head_dim_(head_dim) {}
  // The step's positions are those of this rank's block.
  Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, Saved& saved) override;
  ops::AttentionGradients backward(const Tensor& dout, Saved& saved) override;
  int64_t head_dim() const override { return head_dim_; }

 private:
  const Ring::Course& course(const Step& step) const;
  ops::Attention attend(const Tensor& q, const Ring::Pair& own, const Step& step) const;
  std::shared_ptr<Ring> ring_;
  int64_t head_dim_;
};

}  // namespace ninefold
