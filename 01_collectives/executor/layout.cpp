#include "01_collectives/executor/layout.h"

namespace ninefold::collectives {
namespace {

// 0, a, a + b, …: where parts of these sizes begin, and where the last one ends.
std::vector<int64_t> begins_of(const std::vector<int64_t>& counts) {
  std::vector<int64_t> begins = {0};
  for (const int64_t count : counts) begins.push_back(begins.back() + count);
  return begins;
}

int64_t largest_of(const std::vector<int64_t>& begins) {
  int64_t largest = 0;
  for (size_t i = 1; i < begins.size(); ++i) largest = std::max(largest, begins[i] - begins[i - 1]);
  return largest;
}

}  // namespace

Layout::Layout(const Call& call, int rank, int ranks, int chunks)
    : operation_(call.operation), rank_(rank), ranks_(ranks) {
  if (operation_ == Operation::all_gather) {
    part_ = call.in.size();
  } else if (operation_ == Operation::reduce_scatter) {
    part_ = call.out.size();
  } else if (operation_ == Operation::all_to_all) {
    part_ = call.in.size() / ranks;
    if (!call.in_counts.empty()) {
      in_begins_ = begins_of(call.in_counts);
      out_begins_ = begins_of(call.out_counts);
    }
  } else if (call.tensor().defined()) {
    shorter_ = call.tensor().size() / chunks;
    longer_chunks_ = call.tensor().size() % chunks;
  }
}

int64_t Layout::largest() const {
  if (is_cut()) return cut(1);
  if (!is_uneven()) return part_;
  return std::max(largest_of(in_begins_), largest_of(out_begins_));
}

}  // namespace ninefold::collectives
