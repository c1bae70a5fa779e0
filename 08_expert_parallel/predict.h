// What expert parallelism sends and keeps, by formula from the rows that the routers chose.
#pragma once

#include "08_expert_parallel/expert_parallel.h"
#include "common/comm/traffic.h"
#include "common/nn/llama.h"
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

// Peak bytes of activations of one micro-batch of `tokens` with these exchanges, one a layer. With the names of
// llama_activation_bytes, R rows of own tokens and A rows of own experts, a layer keeps in place of its experts' terms
//   e (A (D + 3 F) + R D) + 4 (R + 2 A)    rows, gate, up, hidden; results; each row's token, and its places
// and its moments are
//   e (N D + A D + 2 A F) + 4 N (k + 1)    the SwiGLU's backward: dy, gradients of results where their experts are,
//   dgate,
//                                          dup; gates' gradients, losses
//   e (N D + max(2 A, R + A) D)            the combine: the residual stream; rows and results in two orders. Where the
//                                          forward runs again, also dy
// where F is what a rank has of an expert's features, 1 / `parts` of them. Where nothing is exchanged, and R = A, a
// layer has what llama_activation_bytes says.
struct MixtureDivision {
  LlamaConfig config;
  Recomputation recomputation{};
  bool exchanges = true;
  int64_t parts = 1;
  CoreActivations core{};  // where ranks share sequences
};
int64_t activation_bytes(const MixtureDivision& division, int64_t tokens, const Precision& precision,
                         const RowsOfLayers& rows);

// The same of a stage of a pipeline: what it keeps, and the largest moment of a whole backward. The halves of a
// backward have no formula: they are 0.
StageActivations stage_activations(const MixtureDivision& division, const LlamaPart& part, int64_t tokens,
                                   const Precision& precision, const RowsOfLayers& rows);

// The rows of each micro-batch of the last step, told by its first sample: those that `parallel` counted or, where it
// divides nothing, that routers chose.
std::map<int64_t, RowsOfLayers> rows_of_micro_batches(const ExpertParallel& parallel, const RoutingRecord& routing);

// What the trainer needs to know: the technique `data` of the data ranks, and of those that share their sequences, and
// beside it `parallel`.
Parallelism beside(Parallelism data, std::shared_ptr<const ExpertParallel> parallel, const TrainOptions& options,
                   const CoreActivations& core = {});

}  // namespace ninefold
