// All ranks of a group in one process, for tests without MPI. Sends are synchronous: they complete when they are
// received, never before.
#pragma once

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "common/base/check.h"
#include "common/comm/transport.h"

namespace ninefold {

// What the ranks have posted to each other. It outlives their transports.
class LocalNetwork {
 public:
  explicit LocalNetwork(int ranks) : ranks_(ranks) {}

  int ranks() const { return ranks_; }
  // Messages received so far: while it stands still and nobody posts any, nobody gets on.
  int64_t delivered() const { return delivered_; }

  uintptr_t post(bool is_send, void* data, int64_t bytes, int from, int to, int tag) {
    posted_.push_back({is_send, data, bytes, from, to, tag});
    match(posted_.back());
    return posted_.size() - 1;
  }
  bool is_done(uintptr_t request) const { return posted_.at(request).is_done; }

 private:
  struct Posted {
    bool is_send;
    void* data;
    int64_t bytes;
    int from, to, tag;
    bool is_done = false;
  };

  void match(Posted& fresh) {
    for (Posted& other : posted_) {
      if (other.is_done || other.is_send == fresh.is_send || other.from != fresh.from || other.to != fresh.to ||
          other.tag != fresh.tag) {
        continue;
      }
      expect(other.bytes == fresh.bytes, "rank {} and rank {} disagree on a message: {} and {} bytes", fresh.from,
             fresh.to, fresh.bytes, other.bytes);
      const Posted& source = fresh.is_send ? fresh : other;
      const Posted& target = fresh.is_send ? other : fresh;
      if (source.bytes > 0) std::memcpy(target.data, source.data, static_cast<size_t>(source.bytes));
      fresh.is_done = other.is_done = true;
      ++delivered_;
      return;
    }
  }

  int ranks_;
  int64_t delivered_ = 0;
  std::deque<Posted> posted_;  // addresses stay
};

class LocalTransport : public Transport {
 public:
  LocalTransport(LocalNetwork& network, int rank) : network_(network), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return network_.ranks(); }
  std::unique_ptr<Transport> subset(const std::vector<int>&) override { return nullptr; }

 private:
  Transfer start_send(const void* data, int64_t bytes, int peer, int tag) override {
    return {network_.post(true, const_cast<void*>(data), bytes, rank_, peer, tag), -1, false};
  }
  Transfer start_recv(void* data, int64_t bytes, int peer, int tag) override {
    return {network_.post(false, data, bytes, peer, rank_, tag), bytes, false};
  }
  bool test_request(Transfer& transfer) override { return network_.is_done(transfer.request); }

  LocalNetwork& network_;
  int rank_;
};

}  // namespace ninefold
