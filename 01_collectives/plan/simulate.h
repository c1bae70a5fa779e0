// Runs the plans of all ranks without processes and without data: what is followed is who has contributed to which
// rank's version of which chunk. Sends are synchronous, so whatever relies on buffering is found.
#pragma once

#include <vector>

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

// The ranks whose contributions are in a rank's version of a chunk, in the order in which they were added. Empty where
// the rank has none.
using Version = std::vector<int>;

struct Message {
  int from = 0, to = 0;
  Chunks chunks{};
  bool is_added = false;  // else it replaces what was there
};

struct Simulation {
  // held[step][rank][chunk]: before the first step, and after each.
  std::vector<std::vector<std::vector<Version>>> held;
  // messages[step]
  std::vector<std::vector<Message>> messages;
};

// plans[rank]. Throws Error, with a sentence that names ranks, step and chunks, where plans do not fit each other: a
// message that nobody receives or nobody sends (synchronous sends: a deadlock), a send of a chunk that the rank does
// not have or that the same step replaces, a contribution added twice, a wrong result, or a chunk that is marked
// complete and is not, or is and is not marked.
Simulation simulate(Operation operation, const std::vector<Plan>& plans, int root);

// The chunks that a range stands for, counted around.
std::vector<int> members(Chunks chunks, int of);

}  // namespace ninefold::collectives
