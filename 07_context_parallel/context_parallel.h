// Several ranks share each sequence (context parallelism): only attention's core and the positions change, because
// every other layer works token by token.
#pragma once

#include "07_context_parallel/layout.h"
#include "07_context_parallel/ring.h"
#include "common/comm/group.h"
#include "common/nn/model.h"

namespace ninefold {

// The ranks that share a sequence, and how they are arranged: neighbours that exchange heads, and the ring of those at
// the same place among their neighbours. A group that a layout does not need is of one rank, or `all`.
struct ContextGroups {
  Group all, ring, neighbours;
};
// All ranks of the world call it. The groups' names are those of `all` with "_ring" and "_ulysses", where both are
// needed.
ContextGroups context_groups(const Group& all, const SequenceLayout& layout);

// The attention core for these groups: `plain` where they are one rank. Cores made with the same `ring` share it.
std::unique_ptr<AttentionCore> context_core(std::unique_ptr<AttentionCore> plain, const ContextGroups& groups,
                                            const SequenceLayout& layout, const std::shared_ptr<Ring>& ring);

// Swaps every `layers.*.attention.core`, and tells routers of the others that share their sequences. To be called on a
// model without storage; the rows that its layers then see are those at layout.positions(group.rank(), length) of each
// sequence, and the gradients of its parameters are partial sums over the group. All ranks of the world call it.
ContextGroups context_parallel(Model& model, const Group& group, const SequenceLayout& layout,
                               const RingOptions& options = {});

}  // namespace ninefold
