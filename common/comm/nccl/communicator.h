// NCCL's communicators, and what their ranks tell each other on the host before there is one.
#pragma once

#include <vector>

#include "common/comm/nccl/stream.h"
#include "common/comm/transport.h"
#include "common/tensor/dtype.h"

namespace ninefold::nccl {

// All ranks make one at the same time, and wait for each other in that.
class Communicator {
 public:
  Communicator(const ncclUniqueId& id, int ranks, int rank) {
    check(ncclCommInitRank(&communicator_, ranks, id, rank));
  }
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  operator ncclComm_t() const { return communicator_; }
  // Throws what has gone wrong since, here or on another rank.
  void require_health() const;
  const Stream& stream() const { return stream_; }

 private:
  ncclComm_t communicator_;
  Stream stream_;
};

ncclUniqueId new_id();

// A name that rank 0 makes up, on all ranks of the transport, which wait for each other.
ncclUniqueId shared_id(Transport& transport);

// Whether several ranks of the transport use one GPU.
bool share_a_gpu(Transport& transport);

// Whether this NCCL lets them. Tells it that they will.
bool may_share_a_gpu();

// "2.28.9"
std::string version();

// What NCCL calls the elements of a tensor; bytes where it only carries them.
ncclDataType_t type_of(Dtype dtype);

}  // namespace ninefold::nccl
