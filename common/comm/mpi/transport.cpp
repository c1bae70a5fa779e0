#include "common/comm/mpi/transport.h"

#include <climits>
#include <cstring>

#include "common/comm/mpi/check.h"
#include "common/comm/mpi/job.h"

namespace ninefold::mpi {
namespace {

int message_length(int64_t bytes) {
  expect(bytes <= INT_MAX, "a message of {} bytes: MPI sends at most {}, so send it in pieces", bytes, INT_MAX);
  return static_cast<int>(bytes);
}

// MPI_Request is a pointer in some libraries and an integer in others.
Transfer make_transfer(MPI_Request request, int64_t expected_bytes) {
  static_assert(sizeof(MPI_Request) <= sizeof(uintptr_t));
  Transfer transfer{.request = 0, .expected_bytes = expected_bytes, .done = false};
  std::memcpy(&transfer.request, &request, sizeof(request));
  return transfer;
}

}  // namespace

MpiTransport::MpiTransport(MPI_Comm communicator, bool synchronous_sends)
    : communicator_(communicator), synchronous_sends_(synchronous_sends) {
  check(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN));
  check(MPI_Comm_rank(communicator_, &rank_));
  check(MPI_Comm_size(communicator_, &size_));
}

MpiTransport::~MpiTransport() { MPI_Comm_free(&communicator_); }

Transfer MpiTransport::start_send(const void* data, int64_t bytes, int peer, int tag) {
  MPI_Request request;
  const auto start = synchronous_sends_ ? MPI_Issend : MPI_Isend;
  check(start(data, message_length(bytes), MPI_BYTE, peer, tag, communicator_, &request));
  return make_transfer(request, -1);
}

Transfer MpiTransport::start_recv(void* data, int64_t bytes, int peer, int tag) {
  MPI_Request request;
  check(MPI_Irecv(data, message_length(bytes), MPI_BYTE, peer, tag, communicator_, &request));
  return make_transfer(request, bytes);
}

bool MpiTransport::test_request(Transfer& transfer) {
  MPI_Request request;
  std::memcpy(&request, &transfer.request, sizeof(request));
  int done = 0;
  MPI_Status status;
  check(MPI_Test(&request, &done, &status));
  if (!done || transfer.expected_bytes < 0) return done != 0;
  int received = 0;
  check(MPI_Get_count(&status, MPI_BYTE, &received));
  const int64_t expected = transfer.expected_bytes;
  expect(received == expected, "rank {} of the group sent {} bytes where {} were expected", status.MPI_SOURCE, received,
         expected);
  return true;
}

std::unique_ptr<Transport> MpiTransport::subset(const std::vector<int>& members) {
  MPI_Group all, some;
  check(MPI_Comm_group(communicator_, &all));
  check(MPI_Group_incl(all, static_cast<int>(members.size()), members.data(), &some));
  MPI_Comm communicator;
  check(MPI_Comm_create_group(communicator_, some, 0, &communicator));
  check(MPI_Group_free(&some));
  check(MPI_Group_free(&all));
  return std::make_unique<MpiTransport>(communicator, synchronous_sends_);
}

std::unique_ptr<Transport> world_transport(bool synchronous_sends) {
  MPI_Comm communicator;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &communicator));
  return std::make_unique<MpiTransport>(communicator, synchronous_sends);
}

}  // namespace ninefold::mpi
