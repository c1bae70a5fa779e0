// NCCL's communicators, on MPI.
#include <cstring>

#include "tests/support/fake_nccl/machine.h"

using namespace ninefold;
using namespace ninefold::fake_nccl;

MPI_Comm fake_nccl::world() {
  static MPI_Comm own = [] {
    MPI_Comm copy;
    MPI_Comm_dup(MPI_COMM_WORLD, &copy);
    return copy;
  }();
  return own;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = machine().version;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t) { return "an error of the fake NCCL"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const int32_t words[] = {machine().ids++ * 16 + job_rank(), job_rank()};
  std::memcpy(id->internal, words, sizeof(words));
  return ncclSuccess;
}

// The rank that made the id up gathers who takes part, and tells all.
ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank) {
  int32_t words[2];
  std::memcpy(words, id.internal, sizeof(words));
  auto made = std::make_unique<FakeCommunicator>();
  made->id = words[0];
  made->rank = rank;
  made->world_ranks.assign(static_cast<size_t>(ranks), 0);
  const int tag = 20000 + words[0] % 10000;
  if (job_rank() == words[1]) {
    made->world_ranks[static_cast<size_t>(rank)] = job_rank();
    for (int i = 1; i < ranks; ++i) {
      int theirs[2];
      MPI_Recv(theirs, 2, MPI_INT, MPI_ANY_SOURCE, tag, world(), MPI_STATUS_IGNORE);
      made->world_ranks[static_cast<size_t>(theirs[0])] = theirs[1];
    }
    for (int i = 0; i < ranks; ++i) {
      if (i != rank) MPI_Send(made->world_ranks.data(), ranks, MPI_INT, made->world_ranks[i], bootstrap_tag, world());
    }
  } else {
    const int own[2] = {rank, job_rank()};
    MPI_Send(own, 2, MPI_INT, words[1], tag, world());
    MPI_Recv(made->world_ranks.data(), ranks, MPI_INT, words[1], bootstrap_tag, world(), MPI_STATUS_IGNORE);
  }
  *communicator = made.release();
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  std::unique_ptr<FakeCommunicator>(communicator).reset();
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t communicator) { return ncclCommDestroy(communicator); }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = ncclSuccess;
  return ncclSuccess;
}
