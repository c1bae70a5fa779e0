// The traffic ledger: bytes a rank really hands to the transport, per mesh dimension and operation, beside what the
// technique's formula predicts.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "common/comm/collectives.h"

namespace ninefold {

// Bytes that one rank sends on average in the bandwidth-optimal algorithm of each collective (Thakur, Rabenseifner,
// Gropp 2005). `elements` is the size of the whole: all_reduce's tensor, all_gather's out, reduce_scatter's and
// all_to_all's in. Where it does not divide by the ranks it counts as padded, so that every result is exact. One rank
// sends nothing.
namespace formula {
int64_t all_reduce_bytes(int ranks, int64_t elements, Dtype dtype);      // 2 (n-1)/n: reduce-scatter, then all-gather
int64_t all_gather_bytes(int ranks, int64_t elements, Dtype dtype);      // (n-1)/n
int64_t reduce_scatter_bytes(int ranks, int64_t elements, Dtype dtype);  // (n-1)/n
int64_t all_to_all_bytes(int ranks, int64_t elements, Dtype dtype);      // (n-1)/n: all but the own part
}  // namespace formula

struct TrafficEntry {
  int64_t calls = 0;
  int64_t bytes = 0;
  int64_t messages = 0;  // counted where they are sent through the transport; a library's are not known
  int64_t predicted_calls = 0;
  int64_t predicted_bytes = 0;
  bool by_formula = false;  // `bytes` of some calls are a formula, because a library did the sending

  // Bytes sent by a call that is counted already.
  void add(const Volume& sent) {
    bytes += sent.bytes;
    messages += sent.messages;
  }
  bool is_empty() const { return calls == 0 && bytes == 0 && predicted_calls == 0 && predicted_bytes == 0; }
};

// The entries of one dimension.
class DimensionTraffic {
 public:
  // Barriers are booked with the other host values.
  TrafficEntry& operator[](Operation operation) { return entries_[index_of(operation)]; }
  const TrafficEntry& operator[](Operation operation) const { return entries_[index_of(operation)]; }

 private:
  static size_t index_of(Operation operation) {
    return static_cast<size_t>(operation == Operation::barrier ? Operation::control : operation);
  }

  std::array<TrafficEntry, operation_count> entries_{};
};

class TrafficLedger {
 public:
  // Where a dimension's calls are booked, for as long as the ledger lives.
  DimensionTraffic& dimension(const std::string& name) { return dimensions_[name]; }
  // A technique's own formula: what it expects to send. Never derived from what was measured.
  void predict(const std::string& dimension, Operation operation, int64_t calls, int64_t bytes);

  // What was booked for one operation; all zero where nothing was.
  TrafficEntry entry(const std::string& dimension, Operation operation) const;
  // dimension -> operation -> entry, Operation::control and entries without any number left out.
  using ByDimension = std::map<std::string, std::map<Operation, TrafficEntry>>;
  ByDimension techniques() const;
  // Host values exchanged by the program itself, by dimension.
  std::map<std::string, TrafficEntry> control() const;

  // Between the two, calls that start and predictions are left out; they nest (OutsideTheBooks, world.h).
  void pause() { ++pauses_; }
  void resume() { --pauses_; }
  bool paused() const { return pauses_ > 0; }
  void clear();

 private:
  std::map<std::string, DimensionTraffic> dimensions_;
  int pauses_ = 0;
};

}  // namespace ninefold
