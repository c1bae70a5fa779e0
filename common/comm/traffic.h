// The traffic ledger: bytes a rank really hands to the transport, per mesh dimension and operation, beside what the
// technique's formula predicts.
#pragma once

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
};

class TrafficLedger {
 public:
  // Adds one call, or bytes sent later by a call that was counted before.
  void book_call(const std::string& dimension, Operation operation);
  void book_bytes(const std::string& dimension, Operation operation, const Volume& sent, bool by_formula);
  // A technique's own formula: what it expects to send. Never derived from what was measured.
  void predict(const std::string& dimension, Operation operation, int64_t calls, int64_t bytes);

  // What was booked for one operation; all zero where nothing was.
  TrafficEntry entry(const std::string& dimension, Operation operation) const;
  // dimension -> operation -> entry, Operation::control left out.
  using ByDimension = std::map<std::string, std::map<Operation, TrafficEntry>>;
  const ByDimension& techniques() const { return techniques_; }
  // Host values exchanged by the program itself, by dimension.
  const std::map<std::string, TrafficEntry>& control() const { return control_; }

  // Between the two, calls that start and predictions are left out; they nest (OutsideTheBooks, world.h).
  void pause() { ++pauses_; }
  void resume() { --pauses_; }
  bool paused() const { return pauses_ > 0; }
  void clear();

 private:
  TrafficEntry& find(const std::string& dimension, Operation operation);

  ByDimension techniques_;
  std::map<std::string, TrafficEntry> control_;
  int pauses_ = 0;
};

}  // namespace ninefold
