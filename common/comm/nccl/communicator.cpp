#include "common/comm/nccl/communicator.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <set>

namespace ninefold::nccl {
namespace {

// Since this version several ranks may use one GPU, if a variable of the environment allows it.
constexpr int first_version_that_shares = NCCL_VERSION(2, 30, 0);

int version_code() {
  int code = 0;
  check(ncclGetVersion(&code));
  return code;
}

void wait_for(Transport& transport, std::vector<Transfer>& transfers) {
  for (Transfer& transfer : transfers) {
    while (!transport.test(transfer)) continue;
  }
}

// Every rank's bytes, in rank order.
std::vector<std::string> bytes_of_all(Transport& transport, const std::string& own) {
  std::vector<std::string> all(static_cast<size_t>(transport.size()), std::string(own.size(), '\0'));
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < transport.size(); ++peer) {
    std::string& theirs = all[static_cast<size_t>(peer)];
    if (peer == transport.rank()) {
      theirs = own;
      continue;
    }
    const auto bytes = static_cast<int64_t>(own.size());
    transfers.push_back(transport.recv(theirs.data(), bytes, peer, control_tag));
    transfers.push_back(transport.send(own.data(), bytes, peer, control_tag));
  }
  wait_for(transport, transfers);
  return all;
}

}  // namespace

// Whoever leaves because of an error cannot wait for the others to finish what is under way.
Communicator::~Communicator() {
  std::uncaught_exceptions() > 0 ? ncclCommAbort(communicator_) : ncclCommDestroy(communicator_);
}

void Communicator::require_health() const {
  ncclResult_t result = ncclSuccess;
  check(ncclCommGetAsyncError(communicator_, &result));
  check(result);
}

ncclUniqueId new_id() {
  ncclUniqueId id;
  check(ncclGetUniqueId(&id));
  return id;
}

ncclUniqueId shared_id(Transport& transport) {
  ncclUniqueId id{};
  if (transport.rank() == 0) id = new_id();
  const std::string bytes = bytes_of_all(transport, std::string(id.internal, sizeof(id.internal))).front();
  std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
  return id;
}

bool share_a_gpu(Transport& transport) {
  int device = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&device));
  check(cudaGetDeviceProperties(&properties, device));
  const std::string own(properties.uuid.bytes, sizeof(properties.uuid.bytes));
  const std::vector<std::string> all = bytes_of_all(transport, own);
  return std::set<std::string>(all.begin(), all.end()).size() < all.size();
}

bool may_share_a_gpu() {
  if (version_code() < first_version_that_shares) return false;
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", /*overwrite=*/0);  // the library takes it from nowhere else
  return true;
}

std::string version() {
  const int code = version_code();
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

ncclDataType_t type_of(Dtype dtype) {
  if (dtype == Dtype::f32) return ncclFloat32;
  if (dtype == Dtype::bf16) return ncclBfloat16;
  if (dtype == Dtype::f16) return ncclFloat16;
  if (dtype == Dtype::i32) return ncclInt32;
  return ncclUint8;  // the 8-bit floats are not reduced
}

}  // namespace ninefold::nccl
