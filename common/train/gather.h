// Whole tensors out of the pieces that ranks hold, and back: for the oracle and for files. Bytes, not tensors, because
// whole models belong to no device's books.
#pragma once

#include <string>

#include "common/comm/mesh.h"
#include "common/nn/parameter.h"

namespace ninefold {

// Whether, of the ranks that hold the same elements, this one is the first: at coordinate 0 of all dimensions that hold
// copies.
bool holds_first_copy(const Placement& placement, const Mesh& mesh);

// The global tensor that `local` is this rank's part of, placed as `parameter` is; its bytes on rank 0, empty on the
// others. All ranks call it. Where ranks hold copies of an element, the highest rank's counts.
std::string gather_global(const World& world, const Parameter& parameter, const Tensor& local);

// Copies this rank's elements out of the bytes of a global tensor of the same type.
void scatter_local(const std::string& global, const Parameter& parameter, const Tensor& local);

}  // namespace ninefold
