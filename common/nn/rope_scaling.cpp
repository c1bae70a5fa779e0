#include "common/nn/rope_scaling.h"

#include <algorithm>
#include <numbers>

#include "common/base/check.h"

namespace ninefold {

std::vector<double> RopeScaling::scaled(std::vector<double> frequencies) const {
  for (double& frequency : frequencies) {
    const double turns = static_cast<double>(original_length) * frequency / (2 * std::numbers::pi);
    const double slowed = std::clamp((high_freq_factor - turns) / (high_freq_factor - low_freq_factor), 0.0, 1.0);
    frequency *= 1 - slowed * (1 - 1 / factor);
  }
  return frequencies;
}

void RopeScaling::validate() const {
  require(factor >= 1, "factor ({}) of scaled rotary positions must be at least 1", factor);
  require(low_freq_factor > 0 && high_freq_factor > low_freq_factor,
          "of scaled rotary positions, high_freq_factor ({}) must be above low_freq_factor ({}), and that above 0",
          high_freq_factor, low_freq_factor);
  require(original_length > 0, "of scaled rotary positions, original_max_position_embeddings ({}) must be at least 1",
          original_length);
}

}  // namespace ninefold
