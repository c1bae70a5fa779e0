// The hierarchical all-reduce: ranks form groups of g neighbours, as on a machine with fast links inside and slow ones
// to other machines. Each group reduces and scatters inside, then each rank reduces its g-th part with its counterparts
// in the other groups, then each group gathers. Only S / g per rank crosses between the groups.
// (Jia et al. 2018, "Highly scalable deep learning training system with mixed-precision", arXiv 1807.11205)
//
//                steps                      bytes sent by a rank, S being the whole data, m = n / g groups
//   all_reduce   2 (g - 1) + 2 (m - 1)      2 (n-1)/n S, of which 2 (m-1)/m S/g between groups
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// `group` divides `ranks`.
Plan hierarchical_all_reduce(int rank, int ranks, int group);

// The largest divisor of `ranks` that is not above its square root: the fewest steps. 1 for primes.
int balanced_group(int ranks);

}  // namespace ninefold::collectives
