// Activation checkpointing: a layer keeps its input alone, and runs its forward again when its backward comes (Chen et
// al. 2016, arXiv 1604.06174). Selective: the results of some operations are kept beside it, so that only what is cheap
// is computed again (Korthikanti et al. 2022, arXiv 2205.05198).
//
//   no recomputation    x -> everything the backward needs ............................ -> dx
//   full                x -> x .......................... run again: everything         -> dx
//   selective           x -> x and the results of --save .. run again: all but those    -> dx
#pragma once

#include <string>

#include "common/base/options.h"
#include "common/nn/model.h"
#include "common/nn/recomputation.h"

namespace ninefold {

// The layers that match `pattern` are counted in forward order; those to which `recomputation` applies run their
// forward again. Losses and gradients keep their bits. To be called before sharding: a unit that holds the layer is
// gathered once for the second forward and the backward, while one inside it would be gathered for each. A pattern that
// matches nothing is a warning that names the layers there are. Throws UserError where `recomputation` applies to no
// layer that matches.
void checkpoint_activations(Model& model, const std::string& pattern, const Recomputation& recomputation);

// What the user asked for.
struct RecomputationOptions {
  std::string recompute = "none";  // none, full, selective, or every:N
  std::string save;                // of selective: names of operations, separated by commas

  void declare(Options& options);
  // Throws UserError where a word is unknown, or the two do not fit.
  Recomputation resolve() const;
};

}  // namespace ninefold
