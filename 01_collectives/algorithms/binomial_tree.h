// Binomial trees: the number of ranks that have taken part doubles with every step, so that few steps do; but some
// ranks send the whole data several times while others wait.
// (Thakur, Rabenseifner, Gropp 2005, "Optimization of collective communication operations in MPICH")
//
//               steps      bytes sent, S being the whole data
//   broadcast   ⌈log2 n⌉   S for each child: the root has ⌈log2 n⌉; n - 1 messages over all ranks
//   reduce      ⌈log2 n⌉   S by every rank but the root
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// In step k, the 2^k ranks that have the data send them 2^k ranks further, counted from the root.
Plan binomial_broadcast(int rank, int ranks, int root);

// The broadcast backwards: what was sent away there is received and added here.
Plan binomial_reduce(int rank, int ranks, int root);

}  // namespace ninefold::collectives
