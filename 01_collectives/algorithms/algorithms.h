// The list of all algorithms, by operation and name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

struct Algorithm {
  Operation operation;
  std::string_view name;
  // What `rank` of `ranks` >= 2 does. `peer` is the root of broadcast and reduce, or the other rank of send and recv;
  // elsewhere it does not matter.
  Plan (*plan)(int rank, int ranks, int peer);
  std::string_view idea;
  bool joins_chunks = false;  // some messages are of several chunks, which then cannot be cut into segments
};

const std::vector<Algorithm>& algorithms();

// The names of an operation's algorithms.
std::vector<std::string> algorithm_names(Operation operation);

// Throws UserError, with the names that there are.
const Algorithm& find_algorithm(Operation operation, std::string_view name);

}  // namespace ninefold::collectives
