#include "common/comm/compare_calls.h"

#include "common/comm/control.h"

namespace ninefold {
namespace {

using Counts = std::vector<int64_t>;

std::vector<Counts> counts_of_all(const Group& group, const Call& call, const Counts& counts) {
  std::vector<Counts> all;
  for (const std::string& bytes : control::all_gather_bytes(group, control::to_bytes(counts), call)) {
    all.push_back(control::from_bytes<int64_t>(bytes));
  }
  return all;
}

// What every rank sends to another is what the other expects.
void compare_parts(const Group& group, const Call& call) {
  const std::vector<Counts> sent = counts_of_all(group, call, call.in_counts);
  const std::vector<Counts> expected = counts_of_all(group, call, call.out_counts);
  for (int from = 0; from < group.size(); ++from) {
    for (int to = 0; to < group.size(); ++to) {
      expect(sent[from][to] == expected[to][from],
             "{}: in all_to_all rank {} sends {} elements to rank {}, which expects {}", group.name(),
             group.members()[from], sent[from][to], group.members()[to], expected[to][from]);
    }
  }
}

}  // namespace

void compare_calls(const Group& group, const Call& call) {
  const std::vector<std::string> calls = control::all_gather_bytes(group, to_string(call), call);
  for (int rank = 1; rank < group.size(); ++rank) {
    expect(
        calls[rank] == calls[0],
        "{}: rank {} calls {} while rank {} calls {}; all ranks of a group must make the same calls in the same order",
        group.name(), group.members()[0], calls[0], group.members()[rank], calls[rank]);
  }
  if (!call.in_counts.empty()) compare_parts(group, call);
}

}  // namespace ninefold
