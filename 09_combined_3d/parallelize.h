// The order in which techniques wrap a model. Today there is one dimension: dp_replicate.
#pragma once

#include "02_ddp/replicate.h"
#include "common/comm/mesh.h"
#include "common/train/trainer.h"

namespace ninefold {

// Splits the work on `model`, which has no storage yet, over the mesh. To be called before `materialize`; what it
// returns holds on to the model.
Parallelism parallelize(Model& model, const Mesh& mesh, const TrainOptions& options);

}  // namespace ninefold
