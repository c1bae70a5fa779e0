// Ring algorithms: every rank sends to the next and receives from the previous one, so that all links are busy all the
// time. Each sends the least that is possible; the number of steps grows with the ranks.
// (Patarasuk, Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations")
//
//                    steps      bytes sent by a rank, S being the whole data
//   all_gather       n - 1      (n-1)/n S
//   reduce_scatter   n - 1      (n-1)/n S
//   all_reduce       2 (n - 1)  2 (n-1)/n S
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// Chunk i begins at rank i and travels around the ring until everybody has it.
Plan ring_all_gather(int rank, int ranks);

// Chunk i sets out from rank i + 1, visits everybody, and grows by each one's contribution; it is complete at rank i.
Plan ring_reduce_scatter(int rank, int ranks);

// The two in turn: once every chunk is complete somewhere, everybody gets it.
Plan ring_all_reduce(int rank, int ranks);

}  // namespace ninefold::collectives
