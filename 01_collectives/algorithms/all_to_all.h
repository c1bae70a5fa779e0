// The pairwise exchange: in step k every rank sends to the k-th rank after it and receives from the k-th before it, so
// that nobody receives from two at once. Parts may differ in size, and be empty.
// (Thakur, Rabenseifner, Gropp 2005)
//
//                steps   bytes sent by a rank
//   all_to_all   n - 1   all but its own part: (n-1)/n S if the parts are equal, S being what it contributes
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// Chunks are named by chunk_between().
Plan pairwise_all_to_all(int rank, int ranks);

}  // namespace ninefold::collectives
