#include "01_collectives/selector.h"

#include <limits>

#include "01_collectives/executor/plan_work.h"

namespace ninefold::collectives {
namespace {

constexpr int64_t kib = 1024, mib = 1024 * kib;
constexpr int any_ranks = std::numeric_limits<int>::max();
constexpr int64_t any_bytes = std::numeric_limits<int64_t>::max();

// Open MPI sends messages of up to 4 KiB, with a header, at once. For longer ones it first asks the receiver, who then
// copies: until 8 or 16 KiB, several short messages arrive sooner than a long one.
constexpr int64_t eager = 4 * kib - 128;

// The first row that fits decides. Measured on two cores of an AMD EPYC (Zen 4), one rank each, by
//   ./run 01/bench -- --collective all -b 4 -e 64M
// Two ranks that exchange all they have send the same bytes as in a ring, in one step instead of two, and add twice as
// much; so the ring is faster only where adding takes longer than waiting. Segments smaller than 512 KiB lose more time
// to their messages (about 3 us each) than they win by being added while they are in the cache. An all_reduce in place
// wants them larger still: it overwrites what the other rank has read, which is slow for as long as the other core has
// it in its cache.
struct Row {
  Operation operation;
  int most_ranks;
  int64_t most_bytes;
  std::string_view algorithm;
  int64_t segment_bytes;
};

constexpr Row fastest_rows[] = {
    {Operation::all_reduce, any_ranks, 16 * kib, "recursive_doubling", eager},
    {Operation::all_reduce, 2, 1 * mib, "recursive_doubling", largest_message},
    {Operation::all_reduce, 2, 4 * mib, "ring", 2 * mib},
    {Operation::all_reduce, 2, any_bytes, "ring", 1 * mib},
    {Operation::all_reduce, any_ranks, any_bytes, "ring", 512 * kib},
    {Operation::all_gather, 2, 16 * kib, "ring", eager},
    {Operation::all_gather, any_ranks, 16 * kib, "bruck", largest_message},
    {Operation::all_gather, any_ranks, any_bytes, "ring", largest_message},
    {Operation::reduce_scatter, any_ranks, 16 * kib, "ring", eager},
    {Operation::reduce_scatter, 2, any_bytes, "ring", 1 * mib},
    {Operation::reduce_scatter, any_ranks, any_bytes, "ring", 512 * kib},
    {Operation::broadcast, any_ranks, 8 * kib, "binomial_tree", eager},
    {Operation::broadcast, 2, any_bytes, "binomial_tree", largest_message},
    {Operation::broadcast, any_ranks, any_bytes, "binomial_tree", 512 * kib},
    {Operation::reduce, any_ranks, 8 * kib, "binomial_tree", eager},
    {Operation::reduce, any_ranks, any_bytes, "binomial_tree", 1 * mib},
    {Operation::all_to_all, any_ranks, 8 * kib, "pairwise", eager},
    {Operation::all_to_all, any_ranks, any_bytes, "pairwise", largest_message},
    {Operation::barrier, any_ranks, any_bytes, "dissemination", largest_message},
    {Operation::send, any_ranks, any_bytes, "message", largest_message},
    {Operation::recv, any_ranks, any_bytes, "message", largest_message},
};

constexpr Row ordered_rows[] = {
    {Operation::all_reduce, any_ranks, any_bytes, "ordered", 512 * kib},
    {Operation::reduce_scatter, any_ranks, any_bytes, "ordered", 512 * kib},
    {Operation::reduce, any_ranks, any_bytes, "ordered", 512 * kib},
};

}  // namespace

Choice fastest(Operation operation, int64_t bytes, int ranks) {
  for (const Row& row : fastest_rows) {
    if (row.operation == operation && ranks <= row.most_ranks && bytes <= row.most_bytes) {
      return {&find_algorithm(operation, row.algorithm), row.segment_bytes};
    }
  }
  expect(false, "no algorithm for {}", name_of(operation));
  return {};
}

Choice in_rank_order(Operation operation, int64_t bytes, int ranks) {
  for (const Row& row : ordered_rows) {
    if (row.operation == operation) return {&find_algorithm(operation, row.algorithm), row.segment_bytes};
  }
  return fastest(operation, bytes, ranks);
}

}  // namespace ninefold::collectives
