// Recursive algorithms: ranks exchange with partners at distances 1, 2, 4, …, so that log2 n steps do. Where n is not a
// power of two, p is the largest one below it; each of the n - p ranks too many first gives its data to a neighbour and
// gets the result back at the end.
// (Rabenseifner 2004, "Optimization of collective reduction operations"; Thakur, Rabenseifner, Gropp 2005)
//
//                       steps           bytes sent by a rank, S being the whole data
//   recursive_doubling  log2 p (+ 2)    log2 p S               fewest steps: for small data
//   halving_doubling    2 log2 p (+ 2)  2 (p-1)/p S            fewest bytes too, if n is a power of two
//   where n > p: the neighbours send S more, and the ranks too many send S
#pragma once

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// In each step, partners exchange all they have and both add.
Plan recursive_doubling_all_reduce(int rank, int ranks);

// Partners first divide the work: each sends the half that the other completes, then half of that half, … When
// everybody has a complete chunk, the same exchanges run backwards and put the whole together.
Plan halving_doubling_all_reduce(int rank, int ranks);

}  // namespace ninefold::collectives
