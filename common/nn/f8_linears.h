// Which linear layers of a model multiply in 8 bits.
#pragma once

#include <string>

#include "common/nn/model.h"

namespace ninefold {

// Whether a layer's path matches the pattern, or lies below one that does: "layers.*" has layers.0.attention.wq.
bool is_at_or_below(const std::string& pattern, const std::string& path);

// Makes the linear layers at or below those that `pattern` matches multiply in 8 bits; none where it is empty. The
// model's last layer is not for that: a score's rounding is an error of the loss. To be called before other techniques
// wrap layers. Throws UserError where the pattern matches no linear layer, or the last one.
void multiply_in_f8(Model& model, const std::string& pattern);

}  // namespace ninefold
