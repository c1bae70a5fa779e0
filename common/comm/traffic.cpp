#include "common/comm/traffic.h"

namespace ninefold {
namespace formula {
namespace {

// (n-1)/n of the elements, padded to a multiple of n.
int64_t all_parts_but_one(int ranks, int64_t elements, Dtype dtype) {
  const int64_t part = (elements + ranks - 1) / ranks;
  return (ranks - 1) * part * size_of(dtype);
}

}  // namespace

int64_t all_reduce_bytes(int ranks, int64_t elements, Dtype dtype) {
  return 2 * all_parts_but_one(ranks, elements, dtype);
}
int64_t all_gather_bytes(int ranks, int64_t elements, Dtype dtype) { return all_parts_but_one(ranks, elements, dtype); }
int64_t reduce_scatter_bytes(int ranks, int64_t elements, Dtype dtype) {
  return all_parts_but_one(ranks, elements, dtype);
}
int64_t all_to_all_bytes(int ranks, int64_t elements, Dtype dtype) { return all_parts_but_one(ranks, elements, dtype); }

}  // namespace formula

TrafficEntry& TrafficLedger::find(const std::string& dimension, Operation operation) {
  const bool is_control = operation == Operation::control || operation == Operation::barrier;
  return is_control ? control_[dimension] : techniques_[dimension][operation];
}

void TrafficLedger::book_call(const std::string& dimension, Operation operation) { ++find(dimension, operation).calls; }

void TrafficLedger::book_bytes(const std::string& dimension, Operation operation, const Volume& sent, bool by_formula) {
  TrafficEntry& entry = find(dimension, operation);
  entry.bytes += sent.bytes;
  entry.messages += sent.messages;
  entry.by_formula |= by_formula;
}

void TrafficLedger::predict(const std::string& dimension, Operation operation, int64_t calls, int64_t bytes) {
  if (paused()) return;
  TrafficEntry& entry = find(dimension, operation);
  entry.predicted_calls += calls;
  entry.predicted_bytes += bytes;
}

TrafficEntry TrafficLedger::entry(const std::string& dimension, Operation operation) const {
  const auto operations = techniques_.find(dimension);
  if (operations == techniques_.end()) return {};
  const auto entry = operations->second.find(operation);
  return entry == operations->second.end() ? TrafficEntry{} : entry->second;
}

void TrafficLedger::clear() {
  techniques_.clear();
  control_.clear();
}

}  // namespace ninefold
