// Pipelines whose stages are sharded over data-parallel ranks, as FSDP shards them.
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

// The schedule with, for every stage of a rank, an UNSHARD before its first action, a REDUCE_GRAD after its last weight
// gradient and a RESHARD after its last action. So a stage is gathered once and its gradients are reduced once, however
// many micro-batches there are. With `reshard_always` it is gathered before each of its actions and given up after it.
Schedule with_sharded_stages(const Schedule& schedule, bool reshard_always = false);

// The schedule with the REDUCE_GRAD alone: for stages whose parameters stay whole, and are gathered when they have been
// updated (ZeRO 1 and 2).
Schedule with_reduced_stages(const Schedule& schedule);

}  // namespace ninefold::pipeline
