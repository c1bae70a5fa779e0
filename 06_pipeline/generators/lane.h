// How the generators write a rank's row: next forward, next backward, of one of its stages.
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

// A stage of a rank, and the micro-batches that come through it in their order: `count` of them from `first` on. What
// would be of later ones is left out: so the rules of a schedule for many micro-batches also give one for few. (It
// stays right: no micro-batch waits for another's data.) The row must outlive the lane.
class Lane {
 public:
  Lane(Row& row, int stage, int first, int count) : row_(row), stage_(stage), first_(first), count_(count) {}

  void forward() { push(Kind::forward, forwards_++); }
  void input_gradient() { push(Kind::input_gradient, backwards_++); }
  // Of the oldest micro-batch that waits for it.
  void weight_gradient() { push(Kind::weight_gradient, weights_++); }
  // Both gradients at once, as B; no weight gradient may be waiting.
  void backward() {
    push(Kind::backward, backwards_++);
    ++weights_;
  }

  int forwards() const { return forwards_; }
  bool has_forward() const { return forwards_ < count_; }
  bool has_weight_gradient() const { return weights_ < backwards_; }

 private:
  void push(Kind kind, int index) {
    if (index < count_) row_.push_back(Action{stage_, kind, first_ + index});
  }

  Row& row_;
  int stage_, first_, count_;
  int forwards_ = 0, backwards_ = 0, weights_ = 0;
};

}  // namespace ninefold::pipeline
