// Preloaded into a program, it makes every send complete only once it is received: whoever relies on buffering hangs.
//   LD_PRELOAD=libninefold_synchronous_sends.so mpirun -n 4 program
#include <mpi.h>

// Stands before the library's own, as MPI's profiling interface allows.
extern "C" int MPI_Isend(const void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm communicator,
                         MPI_Request* request) {
  return PMPI_Issend(data, count, type, peer, tag, communicator, request);
}
