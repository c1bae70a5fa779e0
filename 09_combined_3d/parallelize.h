// The order in which techniques wrap a model. Each is a chapter's; here they are only put together.
#pragma once

#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/policy.h"
#include "05_tensor_parallel/division.h"
#include "06_pipeline/runner/options.h"
#include "07_context_parallel/options.h"
#include "common/comm/mesh.h"
#include "common/train/trainer.h"

namespace ninefold {

// What a user may decide about each technique.
struct Techniques {
  pipeline::PipelineOptions pipeline;
  TensorParallelOptions tensor;
  ContextParallelOptions context;
  ShardingPolicy sharding;
  RecomputationOptions recomputation;
};

// Splits the work on `model`, which is that of `task` and has no storage yet, over the mesh. To be called before
// `materialize`, with settled options. Everything passed outlives what is returned, which holds what it needs besides.
Parallelism parallelize(Model& model, const Task& task, const Mesh& mesh, const Techniques& techniques,
                        const TrainOptions& train);

}  // namespace ninefold
