// A model's parameters in one file.
#pragma once

#include <string>
#include <vector>

#include "common/comm/world.h"
#include "common/nn/parameter.h"

namespace ninefold {

// Writes the whole tensors of which the ranks own parts, under the parameters' names and in the type in which they are
// owned, as a safetensors file. They pass through rank 0 one by one, so that no rank ever holds more than one of them.
// All ranks call it. Throws UserError on rank 0 where the file cannot be written; then the old one is still there.
void save_safetensors(const std::string& path, const World& world, const std::vector<Parameter*>& parameters);

}  // namespace ninefold
