#include "07_context_parallel/context_parallel.h"

#include "07_context_parallel/gathered.h"
#include "07_context_parallel/shared_sequences.h"
#include "07_context_parallel/ulysses.h"
#include "common/comm/world.h"
#include "common/nn/replace.h"
#include "common/nn/router.h"

namespace ninefold {

ContextGroups context_groups(const Group& all, const SequenceLayout& layout) {
  expect(all.size() == layout.ranks, "a layout for {} ranks over a group of {}", layout.ranks, all.size());
  const Group alone = all.world().make_group(all.name(), {all.world().rank()});
  if (layout.ulysses == 1) return {all, all, alone};
  if (layout.blocks() == 1) return {all, alone, all};
  std::vector<int> ring, neighbours;
  for (int rank = 0; rank < all.size(); ++rank) {
    const int member = all.members()[static_cast<size_t>(rank)];
    if (rank % layout.ulysses == all.rank() % layout.ulysses) ring.push_back(member);
    if (rank / layout.ulysses == all.rank() / layout.ulysses) neighbours.push_back(member);
  }
  World& world = all.world();
  return {all, world.make_group(all.name() + "_ring", ring), world.make_group(all.name() + "_ulysses", neighbours)};
}

std::unique_ptr<AttentionCore> context_core(std::unique_ptr<AttentionCore> plain, const ContextGroups& groups,
                                            const SequenceLayout& layout, const std::shared_ptr<Ring>& ring) {
  std::unique_ptr<AttentionCore> core = std::move(plain);
  if (groups.ring.size() > 1) {
    if (layout.layout == ContextLayout::gathered) {
      core = std::make_unique<GatheredAttention>(groups.ring, layout, core->head_dim());
    } else {
      core = std::make_unique<RingAttention>(ring, core->head_dim());
    }
  }
  if (groups.neighbours.size() > 1) {
    core = std::make_unique<UlyssesAttention>(std::move(core), groups.neighbours, layout, groups.ring.rank());
  }
  return core;
}

ContextGroups context_parallel(Model& model, const Group& group, const SequenceLayout& layout,
                               const RingOptions& options) {
  ContextGroups groups = context_groups(group, layout);
  const auto ring = std::make_shared<Ring>(groups.ring, layout, options);
  for_each_core(model, "layers.*.attention.core", [&](const std::string&, std::unique_ptr<AttentionCore>& core) {
    core = context_core(std::move(core), groups, layout, ring);
  });
  if (group.size() == 1) return groups;
  const auto sequences = std::make_shared<SharedSequences>(group, layout);
  for_each_router(model, [&](const std::string&, auto& router) { router->share_sequences(sequences); });
  return groups;
}

}  // namespace ninefold
