// Messages between two ranks on NCCL, with tags, which NCCL does not know: it joins sends and receives of two ranks in
// the order in which each was told of them, and one that is told too early keeps all that follow waiting.
//
// So the two hosts first agree. Each pair of ranks has a communicator and a stream of its own, and the lower rank
// decides what comes next in it:
//   higher rank   tells the lower one that it is ready to send, or to receive, a message with this tag
//   lower rank    once it has been asked for the same message: it is number n between the two, and goes on its way
//   higher rank   starts message n once it has started n - 1
// Nothing is started that the other side is not ready for, so that no message waits behind one that cannot come.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "common/comm/collectives.h"
#include "common/comm/nccl/communicator.h"
#include "common/tensor/cuda/device/cuda_device.h"

namespace ninefold::nccl {

// The messages of one rank within a group.
class Messages {
 public:
  // All ranks of the group make them together. The transport outlives them.
  explicit Messages(Transport& transport);

  // `call` is a send or a recv of a tensor of a GPU.
  std::shared_ptr<Work> start(const Call& call);

 private:
  class Message;
  // What a pair of ranks has in common. The communicator is made with the first message between them, by both.
  struct Pair {
    bool decides = false;  // this is the lower rank
    int64_t next = 0;      // number of the message to start
    // Messages of one tag in one direction start in the order in which they were asked for, or they would be exchanged.
    struct Queue {
      int64_t asked = 0, started = 0;
    };
    std::map<std::pair<Operation, int>, Queue> queues{};  // by operation and tag
    ncclUniqueId id{};
    std::unique_ptr<Communicator> communicator{};
  };
  Pair& pair_with(int peer);

  int rank_;
  // What the hosts tell each other about messages to the higher rank, and to the lower one.
  std::unique_ptr<Transport> upwards_, downwards_;
  std::map<int, Pair> pairs_;
};

}  // namespace ninefold::nccl
