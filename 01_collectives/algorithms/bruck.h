// Bruck's algorithms for small messages: what a rank knows doubles with every step, for any number of ranks.
// (Bruck, Ho, Kipnis, Upfal, Weathersby 1997, "Efficient algorithms for all-to-all communications in multiport
// message-passing systems"; the barrier: Hensgen, Finkel, Manber 1988, "Two algorithms for barrier synchronization")
//
//                          steps      bytes sent by a rank, S being the whole data
//   bruck all_gather       ⌈log2 n⌉   (n-1)/n S
//   dissemination barrier  ⌈log2 n⌉   0
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// In step k, a rank has 2^k chunks: its own and those after it. It sends them 2^k ranks back. Chunks are counted
// around, so that some messages are made of the end of the data and their beginning.
Plan bruck_all_gather(int rank, int ranks);

// In step k, a rank tells the 2^k-th rank after it that it, and all it has heard of, have come. The one chunk is empty.
Plan dissemination_barrier(int rank, int ranks);

}  // namespace ninefold::collectives
