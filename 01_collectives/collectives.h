// The collectives that this chapter builds, as every program uses them:
//
//   World world(options, collectives::ours());
#pragma once

#include <functional>
#include <string_view>

#include "01_collectives/selector.h"

namespace ninefold::collectives {

// The fastest algorithm for each call.
CollectivesFactory ours();

// Every sum is added in rank order, 0, 1, 2, …, so that results have the bits of a serial sum.
CollectivesFactory ordered();

// By the word that --collectives takes: "ours", "ordered", "mpi" for the MPI library's own, or "nccl" for NCCL's, with
// ours for what NCCL does not carry. Throws UserError for others.
CollectivesFactory named(std::string_view name);

// Whatever `choose` decides, which is always the same for the same question. `sums_in_rank_order`: all algorithms that
// it chooses for reductions do.
using Chooser = std::function<Choice(Operation operation, int64_t bytes, int ranks)>;
CollectivesFactory chosen_by(Chooser choose, bool sums_in_rank_order = false);

}  // namespace ninefold::collectives
