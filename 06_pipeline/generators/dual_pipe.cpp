#include "06_pipeline/generators/dual_pipe.h"

#include <algorithm>
#include <deque>

#include "06_pipeline/generators/lane.h"
#include "06_pipeline/schedule/placement.h"
#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

// The row of a rank that is `rank` ranks away from the end where the micro-batches of `near` enter; those of `far`
// enter at the other end.
class DualPipeRow {
 public:
  DualPipeRow(Lane near, Lane far, int rank, int ranks)
      : near_(near), far_(far), before_(rank + 1), after_(ranks / 2 - before_), ranks_(ranks) {}

  // `half`: the micro-batches of one direction, at least as many as ranks.
  void write(int half) {
    fill();
    for (int i = 0; i < half - ranks_ + before_; ++i) {
      near_.forward();
      far_.backward();
      far_.forward();
      near_.backward();
    }
    for (int i = 0; i < after_; ++i) {
      far_.backward();
      far_.forward();
      near_.backward();
    }
    drain();
  }

 private:
  // Until both directions have reached this rank and the first backward is done.
  void fill() {
    for (int i = 0; i < 2 * after_; ++i) near_.forward();
    for (int i = 0; i < before_; ++i) {
      near_.forward();
      far_.forward();
    }
    for (int i = 0; i < after_; ++i) {
      far_.input_gradient();
      far_.weight_gradient();
      far_.forward();
    }
  }

  // No forward is left. From the middle on the weight gradients wait, to be computed where the rank would be idle.
  void drain() {
    for (int i = 0; i < 2 * before_; ++i) backward(i % 2 == 0 ? far_ : near_, i >= before_);
    for (int i = 0; i < after_; ++i) {
      waiting_weight_gradient();
      backward(near_, true);
    }
    while (!waiting_.empty()) waiting_weight_gradient();
  }

  void backward(Lane& lane, bool weights_wait) {
    if (!weights_wait) return lane.backward();
    lane.input_gradient();
    waiting_.push_back(&lane);
  }

  void waiting_weight_gradient() {
    waiting_.front()->weight_gradient();
    waiting_.pop_front();
  }

  Lane near_, far_;
  int before_, after_;  // ranks of this half of the pipeline up to this one, and after it
  int ranks_;
  std::deque<Lane*> waiting_{};
};

}  // namespace

Schedule dual_pipe(int ranks, int micro_batches) {
  require(ranks % 2 == 0 && micro_batches % 2 == 0,
          "dualpipe needs even numbers of stages ({}) and micro-batches ({}): half of each for either direction", ranks,
          micro_batches);
  const int half = micro_batches / 2;
  Schedule schedule(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    Row& row = schedule[rank];
    Lane forth(row, stage_at(Placement::twins, rank, 0, ranks), 0, half);
    Lane back(row, stage_at(Placement::twins, rank, 1, ranks), half, half);
    const bool is_second_half = rank >= ranks / 2;
    DualPipeRow(is_second_half ? back : forth, is_second_half ? forth : back, is_second_half ? ranks - 1 - rank : rank,
                ranks)
        .write(std::max(half, ranks));
  }
  return schedule;
}

}  // namespace ninefold::pipeline
