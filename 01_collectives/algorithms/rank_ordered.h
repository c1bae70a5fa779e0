// Rank-ordered reductions: whoever owns a chunk receives everybody's piece of it and adds them in rank order, 0, 1, 2,
// … So the result has the bits of a serial sum, whatever the number of chunks, their sizes, or who came first; in a
// ring every chunk is added in another order. The price is memory for n - 1 pieces instead of one.
//
//                    steps   bytes sent by a rank, S being the whole data
//   reduce_scatter   1       (n-1)/n S, in n - 1 messages at once
//   all_reduce       n       2 (n-1)/n S
//   reduce           1       S by every rank but the root
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

Plan ordered_reduce_scatter(int rank, int ranks);

// The reduce_scatter, then the ring all_gather.
Plan ordered_all_reduce(int rank, int ranks);

Plan ordered_reduce(int rank, int ranks, int root);

}  // namespace ninefold::collectives
