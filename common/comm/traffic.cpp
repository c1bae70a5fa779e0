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

void TrafficLedger::predict(const std::string& name, Operation operation, int64_t calls, const Volume& each) {
  if (paused()) return;
  TrafficEntry& entry = dimension(name)[operation];
  entry.predicted_calls += calls;
  entry.predicted_messages += calls * each.messages;
  entry.predicted_bytes += calls * each.bytes;
}

TrafficEntry TrafficLedger::entry(const std::string& name, Operation operation) const {
  const auto found = dimensions_.find(name);
  return found == dimensions_.end() ? TrafficEntry{} : found->second[operation];
}

TrafficLedger::ByDimension TrafficLedger::techniques() const {
  ByDimension result;
  for (const auto& [name, entries] : dimensions_) {
    for (int i = 0; i < operation_count; ++i) {
      const auto operation = static_cast<Operation>(i);
      if (operation == Operation::barrier || operation == Operation::control || entries[operation].is_empty()) continue;
      result[name][operation] = entries[operation];
    }
  }
  return result;
}

std::map<std::string, TrafficEntry> TrafficLedger::control() const {
  std::map<std::string, TrafficEntry> result;
  for (const auto& [name, entries] : dimensions_) {
    if (!entries[Operation::control].is_empty()) result[name] = entries[Operation::control];
  }
  return result;
}

void TrafficLedger::clear() {
  for (auto& [name, entries] : dimensions_) entries = {};
}

}  // namespace ninefold
