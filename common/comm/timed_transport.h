// TimedTransport gives every message its virtual time. It carries the messages by another transport, and beside each
// one a stamp, the moment at which its first byte leaves the sender, through a channel of its own that is not traffic.
//
// A message of S bytes over a link with latency α and bandwidth β, posted by sender and receiver at times s and r:
//   sending    begins at b = max(s, when the sender's port is free) and occupies that port for S / β; then the sender
//              may go on.
//   receiving  ends at e = max(b + α, when the receiver's port is free) + S / β and occupies that port until then. The
//              message is there at max(e, r).
//   A message above the cluster's rendezvous size does not begin before r.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "common/comm/ports.h"
#include "common/comm/transport.h"

namespace ninefold {

// One call's way through virtual time on this rank.
struct Course {
  bool is_timed = false;
  PortSet ports = 0;   // that it may use
  double begin = 0;    // issued; once it runs: begun
  double reached = 0;  // when all that it has seen complete was complete; the next message is posted then
  int unbooked = 0;    // messages that were posted and have no time yet
};

// What the transports of one rank share.
struct TimedNetwork {
  const Cluster& cluster;
  Ports ports;
  Course* running = nullptr;  // the call that posts messages now; without one they are not timed
};

class TimedTransport : public Transport {
 public:
  // `members`: world ranks, by rank of the group. All members make one at the same time. The network outlives it.
  TimedTransport(std::unique_ptr<Transport> messages, std::vector<int> members, TimedNetwork& network);
  ~TimedTransport() override;

  int rank() const override { return messages_->rank(); }
  int size() const override { return messages_->size(); }
  std::unique_ptr<Transport> subset(const std::vector<int>& members) override;
  bool is_timed() const override { return true; }
  void added(int64_t bytes) override;

 private:
  class Message;
  Transfer start_send(const void* data, int64_t bytes, int peer, int tag) override;
  Transfer start_recv(void* data, int64_t bytes, int peer, int tag) override;
  bool test_request(Transfer& transfer) override;
  Transfer post(Transfer data, bool is_send, int64_t bytes, int peer, int tag);

  std::unique_ptr<Transport> messages_, stamps_;
  std::unique_ptr<Transport> receipts_;  // of large messages' receives having been posted; where there is a rendezvous
  std::vector<int> members_;
  TimedNetwork& network_;
  std::map<uintptr_t, std::unique_ptr<Message>> under_way_;  // by the request of their Transfer
  uintptr_t next_request_ = 0;
};

}  // namespace ninefold
