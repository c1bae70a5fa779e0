// What a user may decide about context parallelism, but for --cp, which is declared with the other sizes of the mesh.
#pragma once

#include "07_context_parallel/context_parallel.h"
#include "common/base/options.h"

namespace ninefold {

struct ContextParallelOptions {
  ContextLayout layout = ContextLayout::zigzag;
  int ulysses = 0;
  RingOptions ring;

  void declare(Options& options);
  // Throws UserError where an option was given that says nothing of one rank.
  void validate(const Options& given, int ranks) const;
  // Throws UserError where it does not divide over so many ranks.
  SequenceLayout sequence_layout(int ranks) const { return {layout, ranks, ulysses}; }
};

}  // namespace ninefold
