// What the ranks of a communicator send each other for one operation.
#pragma once

#include <cstring>

#include "tests/support/fake_nccl/machine.h"

namespace ninefold::fake_nccl {

// A message of a communicator says which operation it belongs to, so that a rank that is at another one is found out.
struct Header {
  int32_t communicator, operation;
  int64_t bytes;
};

class Exchange {
 public:
  void send(const FakeCommunicator& communicator, int peer, int32_t operation, const void* device, size_t bytes) {
    std::vector<std::byte>& message = messages_.emplace_back(sizeof(Header) + bytes);
    const Header header{communicator.id, operation, static_cast<int64_t>(bytes)};
    std::memcpy(message.data(), &header, sizeof(header));
    if (bytes > 0) {
      machine().host_access().to_host(message.data() + sizeof(header), device, static_cast<int64_t>(bytes));
    }
    start(MPI_Isend, message, communicator.world_ranks[static_cast<size_t>(peer)], communicator.id);
  }
  // Where it arrives, behind its header.
  const std::byte* recv(const FakeCommunicator& communicator, int peer, size_t bytes) {
    std::vector<std::byte>& message = messages_.emplace_back(sizeof(Header) + bytes);
    start(MPI_Irecv, message, communicator.world_ranks[static_cast<size_t>(peer)], communicator.id);
    received_.push_back(message.data());
    return message.data() + sizeof(Header);
  }
  bool is_done(int32_t communicator, int32_t operation) {
    int done = 0;
    MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE);
    for (size_t i = 0; done && i < received_.size(); ++i) {
      Header header;
      std::memcpy(&header, received_[i], sizeof(header));
      expect(header.communicator == communicator && (operation < 0 || header.operation == operation),
             "NCCL would hang: operation {} of communicator {} met operation {} of {}", operation, communicator,
             header.operation, header.communicator);
    }
    return done != 0;
  }

 private:
  template <typename Start>
  void start(Start mpi, std::vector<std::byte>& message, int peer, int id) {
    mpi(message.data(), static_cast<int>(message.size()), MPI_BYTE, peer, data_tag + id % 10000, world(),
        &requests_.emplace_back());
  }

  std::deque<std::vector<std::byte>> messages_;
  std::vector<MPI_Request> requests_;
  std::vector<const std::byte*> received_;
};

}  // namespace ninefold::fake_nccl
