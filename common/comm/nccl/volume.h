// What NCCL sends: rings, in which every rank hands on to the next, as its documentation describes them
// (nccl-tests, doc/PERFORMANCE.md). NCCL chooses between algorithms by itself and counts nothing, so these are
// formulas.
#pragma once

#include "common/comm/collectives.h"

namespace ninefold::nccl {

// What rank `rank` of `ranks` sends for `call`.
Sent volume_of(const Call& call, int ranks, int rank);

}  // namespace ninefold::nccl
