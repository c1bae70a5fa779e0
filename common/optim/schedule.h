// Learning rates by step.
#pragma once

#include <cstdint>

namespace ninefold {

// Linear warm-up, half a cosine down to a floor (Loshchilov, Hutter 2017, arXiv 1608.03983), a tail at the floor. Of
// the steps 0 … steps - 1:
//   the first `warmup`           lr · (step + 1) / warmup, so the last of them has lr itself
//   the last `constant_steps`    min_lr
//   the D between, k = 0 … D-1   min_lr + (lr - min_lr) · (1 + cos(π k / D)) / 2, so the first of them has lr itself
struct CosineSchedule {
  double lr = 0;
  double min_lr = 0;
  int64_t steps = 0;
  int64_t warmup = 0;
  int64_t constant_steps = 0;

  // Throws UserError unless min_lr <= lr, and warmup and constant_steps fit into the steps (if there are any).
  void validate() const;
  // The rate of a step. Steps beyond the last have min_lr.
  double at(int64_t step) const;
};

// The rate of an epoch, counted from 0, when each epoch multiplies it by gamma: torch's StepLR with step_size 1.
double step_lr(double lr, double gamma, int64_t epoch);

}  // namespace ninefold
