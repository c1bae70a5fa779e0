// What context parallelism sends and keeps, by formula.
#pragma once

#include "07_context_parallel/context_parallel.h"
#include "common/comm/traffic.h"
#include "common/nn/llama.h"
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

// How a Llama's sequences are divided.
struct LlamaContext {
  LlamaConfig config;
  SequenceLayout layout;
  Recomputation recomputation{};
};

// Peak bytes of activations of one micro-batch on a rank that has `tokens` of it: those of a serial run on as many
// tokens (llama_activation_bytes), so that they fall as 1 / n; under ulysses each layer keeps attention's result twice,
// as heads and as tokens, e N D more. Or, where that is more, those in attention's backward, in which the ring's sums
// are f32: beside what the layers before keep
//   e N (7 D + 2 K) + 4 N (H + 2)           x, its norm, q, k, v, out; dy and two of its descendants; statistics
//   + N (4 D + 8 K) + e N (D + 2 K)         ring: sums of dq, dk, dv, and one block's part of them
int64_t activation_bytes(const LlamaContext& context, int64_t tokens, const Precision& precision);

// What the trainer needs to know: `data`, which sums gradients over the data ranks and over groups.all, and beside it
// the sequences that these ranks share.
Parallelism beside(Parallelism data, const ContextGroups& groups, const LlamaContext& context,
                   const TrainOptions& options);

}  // namespace ninefold
