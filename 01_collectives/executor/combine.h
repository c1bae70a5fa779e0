// Adds vectors of numbers: the arithmetic of reductions, at the speed of memory.
#pragma once

#include <cstdint>
#include <span>

#include "common/comm/collectives.h"

namespace ninefold::collectives {

// target[i] = pieces[0][i] op pieces[1][i] op …, from left to right, for i in [0, count). The target may be one of the
// pieces. bf16 and f16 values are combined in f32 and rounded once. avg is the sum times 1 / `ranks`.
void combine(void* target, std::span<const void* const> pieces, int64_t count, Dtype dtype, ReduceOp op, int ranks);

}  // namespace ninefold::collectives
