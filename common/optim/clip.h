// Clipping by the global norm of all gradients.
#pragma once

#include <vector>

#include "common/nn/parameter.h"

namespace ninefold {

// The sum of the squares of all gradients held here, exact in the sense of ops::ExactSum: any division of the same
// gradients over ranks gives the same bits.
ops::ExactSum gradient_squares(const std::vector<Parameter*>& parameters);

// The factor that brings gradients of norm `norm` down to `limit`, as torch.nn.utils.clip_grad_norm_; 1 where the norm
// is smaller or the limit is 0 (no clipping).
float clip_factor(double norm, double limit);

}  // namespace ninefold
