// Which algorithm a call runs: a table in the source, read by operation, number of ranks and bytes. Nothing is timed
// at run time, so that every rank chooses alike, books can be predicted, and two runs give the same bits.
#pragma once

#include <cstdint>

#include "01_collectives/algorithms/algorithms.h"

namespace ninefold::collectives {

struct Choice {
  const Algorithm* algorithm;
  int64_t segment_bytes;  // chunks are cut into segments of this size, unless the algorithm joins chunks
};

// Decides for a whole call; `bytes` are those of the whole data: all_reduce's, broadcast's and reduce's tensor,
// all_gather's out, reduce_scatter's and all_to_all's in.
Choice fastest(Operation operation, int64_t bytes, int ranks);

// The same, but all sums are in rank order.
Choice in_rank_order(Operation operation, int64_t bytes, int ranks);

}  // namespace ninefold::collectives
