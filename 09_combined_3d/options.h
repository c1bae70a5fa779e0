// All that a user may decide about a run of the combined trainer: the mesh, what happens along each of its dimensions,
// and the training itself.
#pragma once

#include "09_combined_3d/mesh_options.h"
#include "09_combined_3d/parallelize.h"

namespace ninefold {

struct CombinedOptions {
  MeshOptions mesh;
  Techniques techniques;
  TrainOptions train;

  void declare(Options& options);
  // What can be said before there is a mesh, and with it: the data ranks are those of dp_replicate and dp_shard. Both
  // throw UserError where options contradict each other, or ask for a technique over whose dimension the mesh has one
  // rank; it says what would do.
  void settle(const Options& given, int ranks);
  void settle(const Options& given, const Mesh& mesh, int data_ranks);

 private:
  void settle_experts(const Options& given);
};

}  // namespace ninefold
