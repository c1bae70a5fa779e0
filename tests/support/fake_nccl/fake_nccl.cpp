#include "tests/support/fake_nccl/fake_nccl.h"

#include <mpi.h>
#include <nccl.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "01_collectives/executor/combine.h"
#include "common/base/stopwatch.h"
#include "common/comm/world.h"
#include "common/tensor/cuda/device/cuda_device.h"

namespace ninefold::fake_nccl {
namespace {

struct Machine {
  std::weak_ptr<Device> device;
  int version = 22800;
  bool is_shared = false;
  int64_t operations = 0;
  int32_t ids = 0;
  std::set<FakeStream*> streams;
};

Machine& machine() {
  static Machine one;
  return one;
}

// True once it is complete; called again and again until then.
using Task = std::function<bool()>;

}  // namespace
}  // namespace ninefold::fake_nccl

using namespace ninefold;
using namespace ninefold::fake_nccl;

struct FakeStream {
  std::deque<Task> tasks;
};

struct FakeEvent {
  bool has_passed = true;
};

struct FakeCommunicator {
  int32_t id = 0;
  int rank = 0;
  std::vector<int> world_ranks;
  int32_t operations = 0;
  int depth = 0;
};

namespace {

constexpr int bootstrap_tag = 1, data_tag = 2;

MPI_Comm world() {
  static MPI_Comm own = [] {
    MPI_Comm copy;
    MPI_Comm_dup(MPI_COMM_WORLD, &copy);
    return copy;
  }();
  return own;
}

HostAccess& host_access() { return machine().device.lock()->host_access(); }

void poll() {
  for (FakeStream* stream : machine().streams) {
    while (!stream->tasks.empty() && stream->tasks.front()()) stream->tasks.pop_front();
  }
}

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
      host_access().to_host(message.data() + sizeof(header), device, static_cast<int64_t>(bytes));
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

Dtype dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclFloat32:
      return Dtype::f32;
    case ncclBfloat16:
      return Dtype::bf16;
    case ncclFloat16:
      return Dtype::f16;
    case ncclInt32:
      return Dtype::i32;
    default:
      return Dtype::f8_e4m3;  // bytes
  }
}

ReduceOp op_of(ncclRedOp_t op) {
  constexpr ReduceOp ops[] = {ReduceOp::sum, ReduceOp::product, ReduceOp::max, ReduceOp::min, ReduceOp::avg};
  return ops[op];
}

void put(void* device, const void* host, size_t bytes) {
  if (bytes > 0) host_access().from_host(device, host, static_cast<int64_t>(bytes));
}

// Everyone sends everyone the bytes of `part`(peer); `finish` gets what came from each rank.
struct Part {
  const void* data;
  size_t bytes;
};
ncclResult_t enqueue(ncclComm_t communicator, cudaStream_t stream, const std::function<Part(int)>& outgoing,
                     const std::function<size_t(int)>& incoming,
                     const std::function<void(const std::vector<const std::byte*>&)>& finish) {
  ++machine().operations;
  const int32_t number = communicator->operations++;
  auto exchange = std::make_shared<Exchange>();
  auto arrived = std::make_shared<std::vector<const std::byte*>>();
  stream->tasks.push_back([=, has_started = false]() mutable {
    const int ranks = static_cast<int>(communicator->world_ranks.size());
    if (!has_started) {
      for (int peer = 0; peer < ranks; ++peer) arrived->push_back(exchange->recv(*communicator, peer, incoming(peer)));
      for (int peer = 0; peer < ranks; ++peer) {
        exchange->send(*communicator, peer, number, outgoing(peer).data, outgoing(peer).bytes);
      }
      has_started = true;
    }
    if (!exchange->is_done(communicator->id, number)) return false;
    finish(*arrived);
    return true;
  });
  return ncclSuccess;
}

void combine_into(void* out, const std::vector<const std::byte*>& pieces, size_t count, ncclDataType_t type,
                  ncclRedOp_t op) {
  if (count == 0) return;
  const Dtype dtype = dtype_of(type);
  std::vector<std::byte> result(count * static_cast<size_t>(size_of(dtype)));
  const std::vector<const void*> all(pieces.begin(), pieces.end());
  collectives::combine(result.data(), all, static_cast<int64_t>(count), dtype, op_of(op),
                       static_cast<int>(pieces.size()));
  put(out, result.data(), result.size());
}

size_t width(ncclDataType_t type) { return static_cast<size_t>(size_of(dtype_of(type))); }
const std::byte* at(const void* address, size_t bytes) { return static_cast<const std::byte*>(address) + bytes; }

// What ncclGroupEnd joins to one operation.
struct GroupedMessage {
  bool is_send;
  void* data;
  size_t bytes;
  int peer;
};
struct OpenGroup {
  bool is_open = false;
  ncclComm_t communicator = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<GroupedMessage> messages;
};
OpenGroup& open_group() {
  static OpenGroup one;
  return one;
}

ncclResult_t run(const std::vector<GroupedMessage>& messages, ncclComm_t communicator, cudaStream_t stream) {
  ++machine().operations;
  auto exchange = std::make_shared<Exchange>();
  auto arrived = std::make_shared<std::vector<const std::byte*>>();
  // Both sides count the messages of a pair alike, whatever else there is.
  const int32_t number = messages.size() == 1 ? communicator->operations++ : -1;
  stream->tasks.push_back([=, has_started = false]() mutable {
    for (const GroupedMessage& message : messages) {
      if (has_started) break;
      if (message.is_send) {
        exchange->send(*communicator, message.peer, number, message.data, message.bytes);
      } else {
        arrived->push_back(exchange->recv(*communicator, message.peer, message.bytes));
      }
    }
    has_started = true;
    if (!exchange->is_done(communicator->id, number)) return false;
    size_t next = 0;
    for (const GroupedMessage& message : messages) {
      if (!message.is_send) put(message.data, (*arrived)[next++], message.bytes);
    }
    return true;
  });
  return ncclSuccess;
}

ncclResult_t add(const GroupedMessage& message, ncclComm_t communicator, cudaStream_t stream) {
  OpenGroup& group = open_group();
  if (!group.is_open) return run({message}, communicator, stream);
  group.communicator = communicator;
  group.stream = stream;
  group.messages.push_back(message);
  return ncclSuccess;
}

}  // namespace

void fake_nccl::use_memory_of(const DeviceHandle& device) {
  if (machine().device.expired()) machine().device = device;
}
void fake_nccl::claim(int version, bool ranks_share_a_gpu) {
  machine().version = version;
  machine().is_shared = ranks_share_a_gpu;
}
cudaStream_t ninefold::stream_of(Device&) { return nullptr; }
int64_t fake_nccl::operations() { return machine().operations; }

const char* cudaGetErrorString(cudaError_t) { return "an error of the fake CUDA"; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = std::make_unique<FakeEvent>().release();
  return cudaSuccess;
}
// Streams may still wait for it: it stays.
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->has_passed = stream == nullptr;  // kernels compute at once
  if (stream) {
    stream->tasks.push_back([event] { return event->has_passed = true; });
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  poll();
  return event->has_passed ? cudaSuccess : cudaErrorNotReady;
}
// Kernels compute at once, so that whoever launches the next one waits here, as hosts wait for what kernels compute.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream) {
    stream->tasks.push_back([event] { return event->has_passed; });
  } else {
    const Stopwatch stopwatch;
    const auto& while_waiting = host_access().while_waiting;
    while (!event->has_passed) {
      poll();
      if (while_waiting) while_waiting(stopwatch.seconds());
    }
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = std::make_unique<FakeStream>().release();
  machine().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  machine().streams.erase(stream);
  std::unique_ptr<FakeStream>(stream).reset();
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  properties->uuid.bytes[0] = machine().is_shared ? 1 : static_cast<char>(1 + job_rank());
  return cudaSuccess;
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

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = count * width(type);
  return enqueue(
      communicator, stream,
      [=](int) {
        return Part{in, bytes};
      },
      [=](int) { return bytes; }, [=](const auto& pieces) { combine_into(out, pieces, count, type, op); });
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t in_count, ncclDataType_t type, ncclComm_t communicator,
                           cudaStream_t stream) {
  const size_t bytes = in_count * width(type);
  return enqueue(
      communicator, stream,
      [=](int) {
        return Part{in, bytes};
      },
      [=](int) { return bytes; },
      [=](const auto& pieces) {
        for (size_t i = 0; i < pieces.size(); ++i) put(static_cast<std::byte*>(out) + i * bytes, pieces[i], bytes);
      });
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t out_count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = out_count * width(type);
  return enqueue(
      communicator, stream,
      [=](int peer) {
        return Part{at(in, static_cast<size_t>(peer) * bytes), bytes};
      },
      [=](int) { return bytes; }, [=](const auto& pieces) { combine_into(out, pieces, out_count, type, op); });
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = count * width(type);
  const bool is_root = communicator->rank == root;
  return enqueue(
      communicator, stream,
      [=](int) {
        return Part{in, is_root ? bytes : 0};
      },
      [=](int peer) { return peer == root ? bytes : 0; },
      [=](const auto& pieces) { put(out, pieces[static_cast<size_t>(root)], bytes); });
}

ncclResult_t ncclReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t communicator, cudaStream_t stream) {
  const size_t bytes = count * width(type);
  const bool is_root = communicator->rank == root;
  return enqueue(
      communicator, stream,
      [=](int peer) {
        return Part{in, peer == root ? bytes : 0};
      },
      [=](int) { return is_root ? bytes : 0; },
      [=](const auto& pieces) {
        if (is_root) combine_into(out, pieces, count, type, op);
      });
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  return add({true, const_cast<void*>(data), count * width(type), peer}, communicator, stream);
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  return add({false, data, count * width(type), peer}, communicator, stream);
}
ncclResult_t ncclGroupStart() {
  open_group().is_open = true;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  const OpenGroup group = std::exchange(open_group(), {});
  return group.messages.empty() ? ncclSuccess : run(group.messages, group.communicator, group.stream);
}
