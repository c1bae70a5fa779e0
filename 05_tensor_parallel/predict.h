// What tensor parallelism sends and keeps, by formula.
#pragma once

#include "05_tensor_parallel/parallelize.h"
#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/nn/llama.h"
#include "common/train/trainer.h"

namespace ninefold {

// How a Llama is divided over a group.
struct LlamaDivision {
  LlamaConfig config;
  bool sequence_parallel, loss_parallel, async;
  Recomputation recomputation;

  // Throws UserError where heads, features or the sequence do not divide over so many ranks.
  void validate(int ranks, int64_t length) const;
};

// Books what one micro-batch of `tokens` (N) sends over the group, of type `compute`. With D = dim, V = vocabulary, n
// ranks, in elements of the whole tensor, L layers of which R run their forward again:
//   without sequence parallelism     all_reduce      N D: 4 L + 2    two a block and the embedding's; their conjugates
//                                                         + R        where --save does not keep wo's sum
//   with it                          reduce_scatter  N D: 4 L + 2    + R, as above
//                                    all_gather      N D: 6 L + 3    2 L + 1 of them of inputs kept as shards, again
//                                                         + 2 R      where --save does not keep matmuls
//   in pieces                        reduce_scatter  N D: 1          the embedding's, as its all_gather
//                                    all_gather      N D: 2 L + 2    and those of inputs again
//                                    send            N D / n: n - 1 in place of every other one
//   loss parallel                    all_reduce      N in f32: 3
//   otherwise                        all_gather      N n ceil(V / n): 1
void predict_traffic(TrafficLedger& ledger, const Group& group, const LlamaDivision& division, int64_t tokens,
                     Dtype compute, int64_t times);

// Peak bytes of activations of one micro-batch on a rank of n. With the names of llama_activation_bytes, F = ffn, K =
// kv_dim, H = heads, each layer keeps
//   e N (4 D + (2 D + 2 K + 3 F) / n) + 4 N (2 + H / n)        without sequence parallelism
//   e N (6 D + 2 K + 3 F) / n + 4 N (2 + H) / n                with it: everything is divided
// K / n is at least one head. On top of that comes the largest moment of a forward, a backward or the loss: what is
// gathered, a sum over the ranks on its way (in pieces three blocks of rows, else all rows), or two gradients.
int64_t activation_bytes(const LlamaDivision& division, int ranks, int64_t tokens, Dtype compute);

// FLOPs of a step of `tokens` on n ranks that share each layer, over those of one that has them all: k and v of heads
// that several ranks hold are computed by each, and so are columns of padding; what runs again is kept by other names.
double extra_flops(const LlamaDivision& division, int ranks, int64_t tokens);

// What the trainer needs to know: the data ranks' technique `data`, and beside it `parallel`, which outlives the
// result, over `group`.
Parallelism beside(Parallelism data, const TensorParallel& parallel, const Group& group, const LlamaDivision& division,
                   const TrainOptions& options);

}  // namespace ninefold
