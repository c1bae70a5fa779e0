// Dynamic loss scaling: numbers below 6e-8 are zero in f16, so the backward starts from the loss times a large scale,
// and the gradients, which are f32, are divided by it at the end (Micikevicius et al. 2018, arXiv 1710.03740; the rules
// and the names are those of torch.amp.GradScaler).
#pragma once

#include <vector>

#include "common/nn/parameter.h"

namespace ninefold {

struct LossScaling {
  double init_scale = 65536;
  double growth_factor = 2;        // of the scale, after growth_interval steps in a row without an overflow
  double backoff_factor = 0.5;     // of the scale, after an overflow
  int64_t growth_interval = 2000;  // steps
};

class LossScaler {
 public:
  // Not `enabled`: the scale is 1 and stays so.
  LossScaler(const LossScaling& settings, bool enabled);

  double scale() const { return scale_; }
  bool enabled() const { return enabled_; }
  // Whether gradients of this norm overflowed, so that the step is to be skipped. A norm that is the same on all ranks
  // makes all of them skip it.
  bool overflows(double gradient_norm) const;
  // A step is over, made or skipped.
  void update(bool overflowed);

  // What it carries from step to step.
  struct State {
    double scale;
    int64_t good_steps;  // since the scale last changed
  };
  State state() const { return {scale_, good_steps_}; }
  void restore(const State& state) {
    scale_ = state.scale;
    good_steps_ = state.good_steps;
  }

 private:
  LossScaling settings_;
  bool enabled_;
  double scale_;
  int64_t good_steps_ = 0;
};

// Divides the owned gradients by the scale.
void unscale(const std::vector<Parameter*>& parameters, const LossScaler& scaler);

}  // namespace ninefold
