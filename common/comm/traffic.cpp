#include "common/comm/traffic.h"

#include <numeric>

namespace ninefold {
namespace formula {
namespace {

// (n-1)/n of the elements, padded to a multiple of n.
int64_t all_parts_but_one(int ranks, int64_t elements, Dtype dtype) {
  const int64_t part = (elements + ranks - 1) / ranks;
  return (ranks - 1) * part * size_of(dtype);
}

int64_t uneven_all_to_all_bytes(const Call& call, int rank) {
  const int64_t all = std::accumulate(call.in_counts.begin(), call.in_counts.end(), int64_t{0});
  return (all - call.in_counts[rank]) * size_of(call.in.dtype());
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
int64_t broadcast_bytes(int ranks, int64_t elements, Dtype dtype) { return all_parts_but_one(ranks, elements, dtype); }
int64_t reduce_bytes(int ranks, int64_t elements, Dtype dtype) { return all_parts_but_one(ranks, elements, dtype); }

int64_t bytes_of(const Call& call, int ranks, int rank) {
  switch (call.operation) {
    case Operation::all_reduce:
      return all_reduce_bytes(ranks, call.in.size(), call.in.dtype());
    case Operation::all_gather:
      return all_gather_bytes(ranks, call.out.size(), call.out.dtype());
    case Operation::reduce_scatter:
      return reduce_scatter_bytes(ranks, call.in.size(), call.in.dtype());
    case Operation::broadcast:
      return broadcast_bytes(ranks, call.in.size(), call.in.dtype());
    case Operation::reduce:
      return reduce_bytes(ranks, call.in.size(), call.in.dtype());
    case Operation::all_to_all:
      return call.in_counts.empty() ? all_to_all_bytes(ranks, call.in.size(), call.in.dtype())
                                    : uneven_all_to_all_bytes(call, rank);
    case Operation::send:
      return call.in.bytes();
    case Operation::recv:
    case Operation::barrier:
    case Operation::control:
      return 0;
  }
  return 0;
}

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
