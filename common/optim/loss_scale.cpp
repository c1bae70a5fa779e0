#include "common/optim/loss_scale.h"

#include <cmath>

namespace ninefold {

LossScaler::LossScaler(const LossScaling& settings, bool enabled)
    : settings_(settings), enabled_(enabled), scale_(enabled ? settings.init_scale : 1) {}

bool LossScaler::overflows(double gradient_norm) const { return enabled_ && !std::isfinite(gradient_norm); }

void LossScaler::update(bool overflowed) {
  if (!enabled_) return;
  good_steps_ = overflowed ? 0 : good_steps_ + 1;
  if (overflowed) scale_ *= settings_.backoff_factor;
  if (good_steps_ < settings_.growth_interval) return;
  good_steps_ = 0;
  // As an f32: the backward starts from it.
  const auto grown = static_cast<float>(scale_ * settings_.growth_factor);
  if (std::isfinite(grown)) scale_ = grown;
}

void unscale(const std::vector<Parameter*>& parameters, const LossScaler& scaler) {
  if (!scaler.enabled()) return;
  for (const Parameter* parameter : parameters) {
    ops::scale_(parameter->owned.gradient, static_cast<float>(1 / scaler.scale()));
  }
}

}  // namespace ninefold
