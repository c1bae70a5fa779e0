// The sizes of the mesh, and the order of its dimensions.
#pragma once

#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/comm/mesh.h"

namespace ninefold {

struct MeshOptions {
  // `dp_shard` fills up what the others leave over, unless dp_replicate is to do that. Where none is given, the mesh
  // depends on the number of ranks R:
  //   R divisible by 8   pp(2) x dp_shard(R / 4) x tp(2)
  //   R divisible by 4   dp_shard(R / 2) x tp(2)
  //   otherwise          dp_shard(R)
  int64_t pp = 1, dp_replicate = 1, dp_shard = Options::automatic, cp = 1, tp = 1, ep = 1;
  // Outermost first; the ranks of the last are neighbours.
  std::string order = "pp,dp_replicate,dp_shard,cp,tp";

  void declare(Options& options);
  // Throws UserError where a dimension is not available, or the order does not name each once.
  void settle(const Options& given, int ranks);
  // Throws UserError with the whole equation where the sizes do not multiply to the ranks of the job.
  Mesh over(World& world) const;
};

}  // namespace ninefold
