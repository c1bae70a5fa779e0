// What the programs of this chapter have in common: which ranks hold what, whatever the stage.
#pragma once

#include "03_zero_fsdp/policy.h"
#include "common/comm/mesh.h"
#include "common/train/trainer.h"

namespace ninefold {

// Over how many ranks states are divided, and how many copies there are of each part.
struct ShardingMesh {
  int64_t dp_replicate = 1, dp_shard = Options::automatic;

  void declare(Options& options);
  // Dimensions dp_replicate and dp_shard. Throws UserError where they do not make all ranks of the job.
  Mesh over(World& world) const;
};

// Divides the states of `model` by `policy.stage` over dp_shard, and over cp and ep where the mesh has them, because
// ranks along them have other tokens; what is itself divided along one of these, over the others. Stage 0 is chapter
// 02: every rank holds everything. To be called on a model without storage, before `materialize`, after every other
// technique has wrapped its layers. `options` are resolved; the model and the mesh outlive what is returned.
Parallelism divide(Model& model, const Mesh& mesh, const ShardingPolicy& policy, const TrainOptions& options);

}  // namespace ninefold
