#include "common/comm/control.h"

#include <algorithm>

#include "common/comm/world.h"

namespace ninefold::control {
namespace {

// Host values on their way within one call, booked when it ends.
class Exchange {
 public:
  explicit Exchange(const Group& group, const Call& waiting_for = {.operation = Operation::control})
      : group_(group), waiting_for_(waiting_for), stop_(group.world().virtual_clock()) {}
  ~Exchange() {
    TrafficLedger& ledger = group_.world().traffic();
    if (ledger.paused()) return;
    TrafficEntry& entry = ledger.dimension(group_.name())[Operation::control];
    ++entry.calls;
    entry.add(sent_);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // The length goes first, because the receiver does not know it.
  void send(const std::string& bytes, int peer) {
    const uint64_t length = bytes.size();
    send(&length, sizeof(length), peer);
    send(bytes.data(), bytes.size(), peer);
  }
  std::string recv(int peer) const {
    uint64_t length = 0;
    wait(group_.transport().recv(&length, sizeof(length), peer, control_tag));
    std::string bytes(length, '\0');
    wait(group_.transport().recv(bytes.data(), bytes.size(), peer, control_tag));
    return bytes;
  }

  std::string broadcast(const std::string& bytes, int root) {
    if (group_.rank() != root) return recv(root);
    for (int peer = 0; peer < group_.size(); ++peer) {
      if (peer != root) send(bytes, peer);
    }
    return bytes;
  }
  std::vector<std::string> gather(const std::string& bytes) {
    if (group_.rank() != 0) {
      send(bytes, 0);
      return {};
    }
    std::vector<std::string> all = {bytes};
    for (int peer = 1; peer < group_.size(); ++peer) all.push_back(recv(peer));
    return all;
  }

 private:
  void send(const void* data, size_t bytes, int peer) {
    const auto start = [&] {
      const Counting counting(group_.transport(), &sent_);
      return group_.transport().send(data, static_cast<int64_t>(bytes), peer, control_tag);
    };
    wait(start());
  }
  void wait(Transfer transfer) const {
    group_.world().wait_until([&] { return group_.transport().test(transfer); }, waiting_for_, group_);
  }

  const Group& group_;
  Call waiting_for_;
  Sent sent_;
  ClockStop stop_;  // not the communication of a technique
};

}  // namespace

std::string broadcast_bytes(const Group& group, const std::string& bytes, int root) {
  if (group.size() == 1) return bytes;
  return Exchange(group).broadcast(bytes, root);
}

std::vector<std::string> gather_bytes(const Group& group, const std::string& bytes) {
  if (group.size() == 1) return {bytes};
  return Exchange(group).gather(bytes);
}

std::vector<std::string> all_gather_bytes(const Group& group, const std::string& bytes, const Call& waiting_for) {
  if (group.size() == 1) return {bytes};
  Exchange exchange(group, waiting_for);
  std::vector<std::string> all = exchange.gather(bytes);
  all.resize(group.size());
  for (std::string& one : all) one = exchange.broadcast(one, 0);
  return all;
}

double sum(const Group& group, double value) {
  double total = 0;
  for (const double part : all_gather(group, value)) total += part;
  return total;
}

int64_t max(const Group& group, int64_t value) {
  const std::vector<int64_t> values = all_gather(group, value);
  return *std::max_element(values.begin(), values.end());
}

bool all_true(const Group& group, bool value) {
  const std::vector<char> values = all_gather(group, static_cast<char>(value));
  return std::all_of(values.begin(), values.end(), [](char one) { return one != 0; });
}

}  // namespace ninefold::control
