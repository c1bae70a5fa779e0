// The traffic ledger: calls, and messages and bytes that a rank really hands to the transport, per mesh dimension and
// operation, beside what the technique's formula predicts.
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

// Messages and bytes are those handed to the transport.
struct TrafficEntry : Sent {
  int64_t calls = 0;
  int64_t predicted_calls = 0;
  int64_t predicted_messages = 0;
  int64_t predicted_bytes = 0;
  bool by_formula = false;  // those of some calls are a formula, because a library did the sending

  bool is_empty() const { return calls == 0 && messages == 0 && predicted_calls == 0 && predicted_messages == 0; }
  bool is_as_predicted() const {
    return calls == predicted_calls && messages == predicted_messages && bytes == predicted_bytes;
  }
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
  // A technique's own formula: it expects to make so many calls, in each of which this rank sends `each`. Never derived
  // from what was measured.
  void predict(const std::string& dimension, Operation operation, int64_t calls, const Volume& each);

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
