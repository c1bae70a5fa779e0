// Transport moves bytes between the ranks of a group, without blocking: all that a back end must supply. Collectives
// are written on top of it, and it counts what it is handed, so that traffic is measured where it happens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace ninefold {

// Messages and their bytes.
struct Volume {
  int64_t messages = 0;
  int64_t bytes = 0;

  Volume& operator+=(const Volume& other) {
    messages += other.messages;
    bytes += other.bytes;
    return *this;
  }
  friend bool operator==(const Volume&, const Volume&) = default;
};

// What one rank sent, in all and to each rank of its group.
struct Sent : Volume {
  std::vector<Volume> to;  // no longer than up to the last rank that was sent something

  void add(int peer, const Volume& volume) {
    *this += volume;
    if (static_cast<size_t>(peer) >= to.size()) to.resize(static_cast<size_t>(peer) + 1);
    to[static_cast<size_t>(peer)] += volume;
  }
  void add(const Sent& other) {
    for (size_t peer = 0; peer < other.to.size(); ++peer) {
      if (other.to[peer].messages > 0) add(static_cast<int>(peer), other.to[peer]);
    }
  }
  friend bool operator==(const Sent&, const Sent&) = default;
};

// A message on its way. The memory it reads or writes stays untouched by the caller until `test` says that it is done.
// Two words, which travel in registers: a third one would cost as much as a tenth of a small message.
struct Transfer {
  uintptr_t request = 0;             // the back end's own handle
  int64_t expected_bytes : 56 = -1;  // what a receive must bring; -1 for a send
  bool done : 8 = true;
};

// Tags tell apart messages between the same two ranks; messages with the same tag arrive in the order they were sent.
// Group::send and Group::recv use the tags below `control_tag`, collectives those from `first_collective_tag` on. (MPI
// promises tags up to 32767.)
inline constexpr int control_tag = 1 << 14;
inline constexpr int first_collective_tag = control_tag + 1;

// Peers are ranks within the group, 0 <= peer < size(). Every rank of a group holds its own Transport object.
class Transport {
 public:
  Transport() = default;
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Starts sending. Completion means that `data` may be overwritten, not that the peer has received it; nothing may
  // rely on buffering: a send may wait until the peer receives.
  [[nodiscard]] Transfer send(const void* data, int64_t bytes, int peer, int tag) {
    if (counter_) counter_->add(peer, {1, bytes});
    return start_send(data, bytes, peer, tag);
  }
  // Starts receiving exactly `bytes`; a message of another length is an Error when `test` sees it.
  [[nodiscard]] Transfer recv(void* data, int64_t bytes, int peer, int tag) {
    return start_recv(data, bytes, peer, tag);
  }
  // True once the transfer is complete; each call makes progress on all transfers of the process.
  bool test(Transfer& transfer) {
    if (!transfer.done) transfer.done = test_request(transfer);
    return transfer.done;
  }

  // A transport among `members` (ranks of this group, in the order of their new ranks; the caller is one of them).
  // All members call it, with the same list.
  virtual std::unique_ptr<Transport> subset(const std::vector<int>& members) = 0;

  // Virtual time (timed_transport.h). Where messages are timed, an algorithm sends every chunk as one message, so that
  // its time is that of the textbook, and tells how many bytes of what it received it has added.
  virtual bool is_timed() const { return false; }
  virtual void added(int64_t) {}

  // From now on, what is handed to `send` is counted there; nullptr: nowhere. See Counting.
  void count_in(Sent* counter) { counter_ = counter; }

 private:
  virtual Transfer start_send(const void* data, int64_t bytes, int peer, int tag) = 0;
  virtual Transfer start_recv(void* data, int64_t bytes, int peer, int tag) = 0;
  virtual bool test_request(Transfer& transfer) = 0;

  Sent* counter_ = nullptr;
};

// While it lives, what is handed to the transport's `send` is counted in `counter`, if there is one. Not to be nested.
class Counting {
 public:
  Counting(Transport& transport, Sent* counter) : transport_(transport) { transport_.count_in(counter); }
  ~Counting() { transport_.count_in(nullptr); }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

 private:
  Transport& transport_;
};

}  // namespace ninefold
