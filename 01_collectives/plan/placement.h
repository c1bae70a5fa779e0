// Where the chunks of a plan lie while it runs: in the call's input, in its output, or in scratch memory. The input is
// never written (unless it is the output), and sums that do not belong in the output grow in scratch memory, which is
// used again as soon as they have been sent.
#pragma once

#include <vector>

#include "01_collectives/plan/plan.h"

namespace ninefold::collectives {

enum class Space { in, out, scratch };

struct Place {
  Space space = Space::in;
  int slot = 0;  // in scratch memory: which slot, each as large as the largest chunk; a range of chunks has neighbours
};

struct PlacedAction {
  Action action{};
  Place message{};  // what is sent, or where it is received
  Place own{};      // of additions: the own version before
  Place target{};   // of additions: where the sum goes
  // The chunks are the end of the output and its beginning: the message is put together and taken apart in scratch
  // memory.
  bool is_packed = false;
};

struct PlacedPlan {
  int chunks = 1;
  int slots = 0;         // of scratch memory
  int most_actions = 0;  // in a step
  std::vector<std::vector<PlacedAction>> steps{};
  // The chunk that is to be copied from `in` to `out` before the first step ends: all_gather's and all_to_all's own
  // part. -1 if there is none.
  int kept = -1;
};

// Whose plan it is, and for what. `in_place`: the output is (a part of) the input, or the input a part of the output.
struct Part {
  Operation operation = Operation::barrier;
  int rank = 0, ranks = 1;
  int root = 0;
  bool in_place = false;
};

PlacedPlan placed(const Plan& plan, const Part& part);

}  // namespace ninefold::collectives
