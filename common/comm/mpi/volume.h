// What Open MPI's own non-blocking collectives send: the rules by which its component coll/libnbc has chosen algorithms
// since version 4.1 (ompi/mca/coll/libnbc/nbc_*.c), unless an MCA parameter asks for another one. The tests
// 01_collectives/monitoring compare them with what Open MPI counts.
#pragma once

#include "common/comm/collectives.h"

namespace ninefold::mpi {

// What rank `rank` of `ranks` sends for `call`, a collective.
Sent volume_of(const Call& call, int ranks, int rank);

}  // namespace ninefold::mpi
