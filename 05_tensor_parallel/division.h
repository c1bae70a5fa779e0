// How a Llama is divided over a group: what a user may decide about tensor parallelism, and the plan that follows.
#pragma once

#include "05_tensor_parallel/plans.h"
#include "common/base/options.h"
#include "common/comm/group.h"
#include "common/nn/recomputation.h"

namespace ninefold {

struct LlamaDivision {
  LlamaConfig config;
  bool sequence_parallel = true, loss_parallel = true, async = false;
  Recomputation recomputation;

  // Throws UserError where heads, features or the sequence do not divide over so many ranks.
  void validate(int ranks, int64_t length) const;
  Plan plan() const;
};

struct TensorParallelOptions {
  bool sequence_parallel = true, loss_parallel = true, async = false;

  // Without --tp, which is declared with the other sizes of the mesh.
  void declare(Options& options);
  // Sentences about options that were given and change nothing on so many ranks. One line each.
  std::string without_effect(int ranks, const Options& given) const;
  LlamaDivision division(const LlamaConfig& config, const Recomputation& recomputation) const {
    return {config, sequence_parallel, loss_parallel, async, recomputation};
  }
};

// A line for groups that communicate slowly in every layer: of more ranks than usually share fast links (8), or on
// several hosts. Empty for others. All ranks of the group call it.
std::string warning_of_slow_links(const Group& group);

}  // namespace ninefold
