// NCCL's operations, on MPI.
#include <utility>

#include "01_collectives/executor/combine.h"
#include "tests/support/fake_nccl/exchange.h"

using namespace ninefold;
using namespace ninefold::fake_nccl;

namespace {

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
  if (bytes > 0) machine().host_access().from_host(device, host, static_cast<int64_t>(bytes));
}

void count_operation(FakeStream& stream) {
  expect(std::exchange(stream.waits_for_kernels, false),
         "NCCL would not wait for the kernels that compute what it is to send");
  ++machine().operations;
}

// Everyone sends everyone the bytes of `part`(peer); `finish` gets what came from each rank.
struct Part {
  const void* data;
  size_t bytes;
};
ncclResult_t enqueue(ncclComm_t communicator, cudaStream_t stream, const std::function<Part(int)>& outgoing,
                     const std::function<size_t(int)>& incoming,
                     const std::function<void(const std::vector<const std::byte*>&)>& finish) {
  count_operation(*stream);
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
  count_operation(*stream);
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
