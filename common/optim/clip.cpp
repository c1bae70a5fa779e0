#include "common/optim/clip.h"

#include <algorithm>

namespace ninefold {

ops::ExactSum gradient_squares(const std::vector<Parameter*>& parameters) {
  ops::ExactSum total;
  for (const Parameter* parameter : parameters) total += ops::sum_of_squares(parameter->owned.gradient);
  return total;
}

float clip_factor(double norm, double limit) {
  return limit == 0 ? 1.0f : static_cast<float>(std::min(1.0, limit / (norm + 1e-6)));
}

}  // namespace ninefold
