// Whether the layers of a plan fit each other.
#pragma once

#include "05_tensor_parallel/resolve.h"

namespace ninefold {

// Follows activations through the layers and throws UserError where one gives another layout than the next takes; both
// are named. The scores of the last layer are whole, or columns under loss parallelism.
void check_flow(const std::vector<PlannedLayer>& layers, bool loss_parallel);

}  // namespace ninefold
