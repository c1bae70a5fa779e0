// The transport over an MPI communicator.
#pragma once

#include <mpi.h>

#include "common/comm/transport.h"

namespace ninefold::mpi {

class MpiTransport : public Transport {
 public:
  // Owns `communicator` and frees it.
  MpiTransport(MPI_Comm communicator, bool synchronous_sends);
  ~MpiTransport() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transport> subset(const std::vector<int>& members) override;

  MPI_Comm communicator() const { return communicator_; }

 private:
  Transfer start_send(const void* data, int64_t bytes, int peer, int tag) override;
  Transfer start_recv(void* data, int64_t bytes, int peer, int tag) override;
  bool test_request(Transfer& transfer) override;

  MPI_Comm communicator_;
  bool synchronous_sends_;
  int rank_ = 0, size_ = 1;
};

}  // namespace ninefold::mpi
