#include "common/optim/schedule.h"

#include <cmath>
#include <numbers>

#include "common/base/check.h"

namespace ninefold {

void CosineSchedule::validate() const {
  require(lr >= 0 && min_lr >= 0, "lr ({}) and min-lr ({}) must be at least 0", lr, min_lr);
  require(min_lr <= lr, "min-lr ({}) must be at most lr ({})", min_lr, lr);
  require(warmup >= 0 && constant_steps >= 0, "warmup ({}) and constant-steps ({}) must be at least 0", warmup,
          constant_steps);
  require(steps == 0 || warmup + constant_steps <= steps,
          "warmup ({}) + constant-steps ({}) must be at most steps ({})", warmup, constant_steps, steps);
}

double CosineSchedule::at(int64_t step) const {
  expect(step >= 0, "the learning rate of step {}", step);
  const int64_t tail = steps - constant_steps;
  if (step >= tail) return min_lr;
  if (step < warmup) return lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(tail - warmup);
  return min_lr + (lr - min_lr) * (1 + std::cos(std::numbers::pi * progress)) / 2;
}

double step_lr(double lr, double gamma, int64_t epoch) {
  for (int64_t i = 0; i < epoch; ++i) lr *= gamma;
  return lr;
}

}  // namespace ninefold
