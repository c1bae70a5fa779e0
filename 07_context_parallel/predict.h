// What context parallelism sends and keeps, by formula.
#pragma once

#include "07_context_parallel/context_parallel.h"
#include "common/comm/traffic.h"
#include "common/nn/llama_activations.h"
#include "common/train/trainer.h"

namespace ninefold {

// Elements of a token's queries and of its keys in one layer, as the layer has them here.
struct AttentionWidths {
  int64_t q, kv;
};

// What attention sends in a pass.
enum class Pass { forward, backward };

// Books what `times` passes of one layer send over the groups, for the N tokens of this rank in a micro-batch, with
// elements of e bytes, `compute`. D = widths.q, K = widths.kv; n ranks, of which u exchange heads, in a ring of
// m = n / u:
//                           forward                             backward
//   ring         send       2 (m-1) times e N K                 the same, and 2 (m-1) times 4 N K
//   gathered     all_gather 2 of e n N K in all                 2 of e n N K, and reduce_scatter: 2 of 4 n N K
//   ulysses      all_to_all 2 of e N D, 2 of e N K              2 of e N D, 2 of e N K
// A ring under ulysses sends as much as one of m ranks that have all heads of N tokens: u times as many tokens, a u-th
// of the heads.
void predict_traffic(TrafficLedger& ledger, const ContextGroups& groups, const SequenceLayout& layout,
                     const AttentionWidths& widths, int64_t tokens, Dtype compute, Pass pass, int64_t times);

// What attention's core takes on a rank of these layouts beside the plain one, for sequences of `length` in all: under
// `contiguous` the first rank sees no keys but its own, and has nothing to add up, unless it computes in less than f32.
CoreActivations core_of(const SequenceLayout& layout, int rank, int64_t length, Dtype compute);

// How a Llama's sequences are divided, and over how many ranks its heads are besides.
struct LlamaContext {
  LlamaConfig config;
  SequenceLayout layout;
  Recomputation recomputation{};
  int64_t tp = 1;

  AttentionWidths widths() const;
};

// Books the choices that the routers of a mixture gather in so many forwards, of which each token of this rank makes k:
//   all_gather of 4 n N k bytes in all, and where full experts drop the lowest gates, as much of these
void predict_routers(TrafficLedger& ledger, const Group& all, const MoeConfig& moe, int64_t tokens, int64_t times);

// What the trainer needs to know: `data`, which sums gradients over the data ranks and over groups.all, and beside it
// the sequences that these ranks share. `parts`: what this rank does of a step; empty: all of it. Activations are those
// of a serial run on as many tokens as the rank has, so that they fall as 1 / n, with those of the core.
Parallelism beside(Parallelism data, const ContextGroups& groups, const LlamaContext& context,
                   const TrainOptions& options, std::vector<PartOfStep> parts = {});

}  // namespace ninefold
