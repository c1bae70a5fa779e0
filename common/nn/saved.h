// What a forward keeps for its backward. Layers hold no hidden state: everything lives in the Saved passed in.
#pragma once

#include <vector>

#include "common/tensor/tensor.h"

namespace ninefold {

// What a layer needs to know beyond its input: which step and which micro-batch this is.
struct Step {
  int64_t number = 0;           // of the training step, from 0
  int64_t first_sample = 0;     // global index of the micro-batch's first sample within the step's global batch
  int64_t rows_per_sample = 1;  // rows of an activation that belong to one sample: the sequence length, or 1 for images
  Tensor positions;             // i32 [rows_per_sample], the same for every sequence
  Tensor targets;               // i32 [rows]
  int64_t global_targets = 1;   // targets in the global batch: the loss is their mean
  uint64_t seed = 0;            // of dropout
  bool training = true;         // dropout is on, and a backward will follow
  Tensor losses;                // f32 [rows], set by the loss
};

// The memory of one micro-batch on one stage: a stack that forward pushes and backward pops. It never holds the
// storage of a parameter, or freeing parameters between forward and backward would free nothing.
class Saved {
 public:
  explicit Saved(Step step) : step_(std::move(step)) {}
  Saved(const Saved&) = delete;
  Saved& operator=(const Saved&) = delete;

  Step& step() { return step_; }
  // Keeps a tensor for the backward; lets it go where no backward follows.
  void push(const Tensor& tensor) {
    if (!step_.training) return;
    expect(!tensor.defined() || (tensor.kind() != MemoryKind::parameters && tensor.kind() != MemoryKind::gathered),
           "a forward would keep a parameter of shape {}", to_string(tensor.shape()));
    stack_.push_back(tensor);
  }
  Tensor pop() {
    expect(!stack_.empty(), "backward asks for more tensors than forward kept");
    Tensor top = std::move(stack_.back());
    stack_.pop_back();
    return top;
  }
  bool empty() const { return stack_.empty(); }

 private:
  Step step_;
  std::vector<Tensor> stack_;
};

}  // namespace ninefold
