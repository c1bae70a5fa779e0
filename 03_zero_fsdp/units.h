// Which layers become units of sharding.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "common/nn/layer.h"

namespace ninefold {

// The paths of the layers that `wrap` chooses, in forward order, outer ones first. `wrap` is a list of patterns
// separated by commas ("layers.*,output"), or "size:N": layers with at least N parameters that no unit inside them
// holds. A pattern that matches nothing is a warning that names the layers there are; so is said where no layer is
// large enough. Throws UserError where `wrap` is neither.
std::vector<std::string> unit_paths(Layer& model, const std::string& wrap);

// The rule behind "size:N", as PyTorch's size_based_auto_wrap_policy: from the innermost layer outwards, a layer
// becomes a unit if at least `minimum` of its parameters are in no unit yet. `layers`: paths, outer ones first, with
// the number of parameters below each.
std::vector<std::string> size_based_units(const std::vector<std::pair<std::string, int64_t>>& layers, int64_t minimum);

// Whether `inner` lies below the layer `outer`, or is it: "layers.1" holds "layers.1.attention", not "layers.10".
bool is_below(const std::string& inner, const std::string& outer);

}  // namespace ninefold
