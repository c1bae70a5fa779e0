#include "common/comm/nccl/messages.h"

#include <numeric>

namespace ninefold::nccl {
namespace {

// What one host tells the other about a message. The number and the name are the lower rank's.
struct Notice {
  int64_t bytes = 0;
  int64_t number = 0;
  ncclUniqueId id{};
};

std::unique_ptr<Transport> duplicate(Transport& transport) {
  std::vector<int> all(static_cast<size_t>(transport.size()));
  std::iota(all.begin(), all.end(), 0);
  return transport.subset(all);
}

}  // namespace

class Messages::Message : public Work {
 public:
  Message(const Call& call, Pair& pair, Transport& notices)
      : operation_(call.operation),
        peer_(call.peer),
        tag_(call.tag),
        tensor_(call.tensor()),
        bytes_(tensor_.bytes()),
        compute_(stream_of(*tensor_.device())),
        pair_(pair),
        queue_(pair.queues[{call.operation, call.tag}]),
        turn_(queue_.asked++),
        notices_(notices) {
    ready_.record(compute_);
    if (!pair.decides) tell({.bytes = bytes_});
    arriving_ = notices_.recv(&told_, sizeof(Notice), peer_, tag_);
  }

  bool step() override {
    if (!has_started_) try_to_start();
    return has_started_ && notices_.test(leaving_) && done_.has_passed();
  }
  bool is_awaited_by_device() override {
    if (has_started_) done_.delay(compute_);
    return has_started_;
  }

 private:
  void tell(const Notice& notice) {
    telling_ = notice;
    leaving_ = notices_.send(&telling_, sizeof(Notice), peer_, tag_);
  }

  void try_to_start() {
    if (queue_.started != turn_ || !notices_.test(arriving_)) return;
    if (pair_.decides) tell({.bytes = bytes_, .number = pair_.next, .id = pair_.id});
    expect(told_.bytes == bytes_, "rank {} of the group sends or expects {} bytes, and this rank {}", peer_,
           told_.bytes, bytes_);
    if (pair_.decides || told_.number == pair_.next) start(pair_.decides ? pair_.id : told_.id);
  }

  // Both ranks wait in here for each other, where it is their first message: the lower one has told the higher one to
  // come, and goes nowhere else before. So chains of waiting ranks ascend, and end.
  void start(const ncclUniqueId& id) {
    if (!pair_.communicator) pair_.communicator = std::make_unique<Communicator>(id, 2, pair_.decides ? 0 : 1);
    const Communicator& communicator = *pair_.communicator;
    const auto bytes = static_cast<size_t>(bytes_);
    const int peer = pair_.decides ? 1 : 0;
    ready_.delay(communicator.stream());
    if (bytes > 0 && operation_ == Operation::send) {
      check(ncclSend(tensor_.raw(), bytes, ncclUint8, peer, communicator, communicator.stream()));
    } else if (bytes > 0) {
      check(ncclRecv(tensor_.raw(), bytes, ncclUint8, peer, communicator, communicator.stream()));
    }
    done_.record(communicator.stream());
    has_started_ = true;
    tensor_ = {};
    ++pair_.next;
    ++queue_.started;
  }

  Operation operation_;
  int peer_, tag_;
  Tensor tensor_;  // until it is started
  int64_t bytes_;
  cudaStream_t compute_;
  Pair& pair_;
  Pair::Queue& queue_;
  int64_t turn_;
  Transport& notices_;
  Notice telling_, told_;
  Transfer leaving_, arriving_;
  Event ready_, done_;
  bool has_started_ = false;
};

Messages::Messages(Transport& transport)
    : rank_(transport.rank()), upwards_(duplicate(transport)), downwards_(duplicate(transport)) {}

std::shared_ptr<Work> Messages::start(const Call& call) {
  const bool goes_up = (call.operation == Operation::send) == (rank_ < call.peer);
  return std::make_shared<Message>(call, pair_with(call.peer), goes_up ? *upwards_ : *downwards_);
}

Messages::Pair& Messages::pair_with(int peer) {
  const auto [place, is_new] = pairs_.try_emplace(peer);
  Pair& pair = place->second;
  if (is_new) pair.decides = rank_ < peer;
  if (is_new && pair.decides) pair.id = new_id();
  return pair;
}

}  // namespace ninefold::nccl
