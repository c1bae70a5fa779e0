// What expert parallelism sends and keeps, by formula from the rows that the routers chose.
#pragma once

#include "08_expert_parallel/expert_parallel.h"
#include "common/comm/traffic.h"
#include "common/nn/llama_activations.h"
#include "common/train/trainer.h"

namespace ninefold {

// Books what the exchanges of the micro-batches in `parallel.counted()` send over the group, n ranks, D = dim, e bytes
// an element, E experts. Of a mixture with s rows of this rank's tokens for experts of other ranks, and r rows of
// theirs for its own:
//   all_to_all   e D s    dispatch, and again in the backward with the gradients of results
//                e D r    combine, and again in the backward with the gradients of rows
//   all_gather   (n-1) 4 E    the counts
// A layer that runs its forward again sends all but the backward's once more. Where experts are cut over a group, it
// sums the results of the A rows that its ranks compute with, and in the backward the rows' gradients:
//   all_reduce   A D: 2, and one more where the forward runs again
void predict_traffic(TrafficLedger& ledger, const ExpertParallel& parallel, const LlamaConfig& config,
                     const Recomputation& recomputation, Dtype compute);

// How ranks share the layers of a model, `layers` of them, in a micro-batch with such rows; layers without rows here,
// as those of other stages, have 0.
LayerSharing sharing_of(const RowsOfLayers& rows, int64_t layers, const ExpertParallel& parallel,
                        const CoreActivations& core);

// The rows of each micro-batch of the last step, told by its first sample: those that `parallel` counted or, where it
// divides nothing, that routers chose.
std::map<int64_t, RowsOfLayers> rows_of_micro_batches(const ExpertParallel& parallel, const RoutingRecord& routing);

// What the trainer needs to know: the technique `data` of the data ranks, and of those that share their sequences, and
// beside it `parallel`.
Parallelism beside(Parallelism data, std::shared_ptr<const ExpertParallel> parallel, const TrainOptions& options,
                   const CoreActivations& core = {});

}  // namespace ninefold
