#include "01_collectives/algorithms/algorithms.h"

#include "01_collectives/algorithms/all_to_all.h"
#include "01_collectives/algorithms/binomial_tree.h"
#include "01_collectives/algorithms/bruck.h"
#include "01_collectives/algorithms/hierarchical.h"
#include "01_collectives/algorithms/rank_ordered.h"
#include "01_collectives/algorithms/recursive.h"
#include "01_collectives/algorithms/ring.h"

namespace ninefold::collectives {
namespace {

template <Plan (*make)(int rank, int ranks)>
Plan without_root(int rank, int ranks, int) {
  return make(rank, ranks);
}

Plan in_balanced_groups(int rank, int ranks, int) {
  return hierarchical_all_reduce(rank, ranks, balanced_group(ranks));
}

// One message, as a plan of one step.
Plan send_one(int, int, int peer) { return {.chunks = 1, .steps = {{send({0}, peer)}}}; }
Plan receive_one(int, int, int peer) { return {.chunks = 1, .steps = {{receive({0}, peer)}}}; }

}  // namespace

const std::vector<Algorithm>& algorithms() {
  static const std::vector<Algorithm> all = {
      {Operation::all_reduce, "ring", without_root<ring_all_reduce>,
       "a reduce_scatter around the ring, then an all_gather: the fewest bytes"},
      {Operation::all_reduce, "recursive_doubling", without_root<recursive_doubling_all_reduce>,
       "partners at distances 1, 2, 4, ... exchange all they have: the fewest steps"},
      {Operation::all_reduce, "halving_doubling", without_root<halving_doubling_all_reduce>,
       "partners divide the work in halves, then put the result together: few steps and few bytes", true},
      {Operation::all_reduce, "hierarchical", in_balanced_groups,
       "inside groups of neighbours, then between the groups, then inside again", true},
      {Operation::all_reduce, "ordered", without_root<ordered_all_reduce>,
       "the owner of a chunk adds everybody's piece in rank order: the bits of a serial sum"},
      {Operation::all_gather, "ring", without_root<ring_all_gather>, "every chunk travels around the ring"},
      {Operation::all_gather, "bruck", without_root<bruck_all_gather>,
       "what a rank knows doubles with every step: the fewest steps", true},
      {Operation::reduce_scatter, "ring", without_root<ring_reduce_scatter>,
       "every chunk travels around the ring and grows by each rank's contribution"},
      {Operation::reduce_scatter, "ordered", without_root<ordered_reduce_scatter>,
       "the owner of a chunk adds everybody's piece in rank order: the bits of a serial sum"},
      {Operation::broadcast, "binomial_tree", binomial_broadcast,
       "the ranks that have the data double with every step"},
      {Operation::reduce, "binomial_tree", binomial_reduce, "the broadcast backwards"},
      {Operation::reduce, "ordered", ordered_reduce,
       "the root adds everybody's data in rank order: the bits of a serial sum"},
      {Operation::all_to_all, "pairwise", without_root<pairwise_all_to_all>,
       "in step k with the k-th rank after and before"},
      {Operation::barrier, "dissemination", without_root<dissemination_barrier>,
       "the ranks that have been heard of double with every step"},
      {Operation::send, "message", send_one, "one message"},
      {Operation::recv, "message", receive_one, "one message"},
  };
  return all;
}

std::vector<std::string> algorithm_names(Operation operation) {
  std::vector<std::string> names;
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.operation == operation) names.emplace_back(algorithm.name);
  }
  return names;
}

const Algorithm& find_algorithm(Operation operation, std::string_view name) {
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.operation == operation && algorithm.name == name) return algorithm;
  }
  throw UserError(fmt::format("{} has no algorithm '{}': there are {}", name_of(operation), name,
                              fmt::join(algorithm_names(operation), ", ")));
}

}  // namespace ninefold::collectives
