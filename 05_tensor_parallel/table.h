// A plan as people read it.
#pragma once

#include <string>

#include "05_tensor_parallel/resolve.h"

namespace ninefold {

// A line for each layer with a style or a weight: style, shape of the weight and of a rank's part of it, and what is
// communicated in forward and backward. Layers that differ in their number only share a line: "layers.*".
std::string plan_table(const std::vector<PlannedLayer>& layers, bool loss_parallel, int ranks);

}  // namespace ninefold
