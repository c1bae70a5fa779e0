// What tensor parallelism sends and computes, by formula; what it keeps is in activations.h.
#pragma once

#include <vector>

#include "05_tensor_parallel/activations.h"
#include "05_tensor_parallel/parallelize.h"
#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/train/trainer.h"

namespace ninefold {

// Books what one micro-batch of `tokens` (N) sends over the group on its way through `part`, of type `compute`. With D
// = dim, V = vocabulary, n ranks, in elements of the whole tensor, and for all L layers, of which R run their forward
// again:
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
//   in f8                            all_gather      those of the blocks above, of a byte an element
//                                    all_reduce      1 in i32: 7 L + 2 R    scales of wo's and w2's input and of the
//                                                                           gradients of wq, wk, wv, w1, w3
//                                                         + 4 L + 2 R       with sequence parallelism: also of rows
// Of those that stand beside the layers', the embedding sums one and gathers one, the head sums one and gathers two (in
// pieces one), and the loss is the head's.
void predict_traffic(TrafficLedger& ledger, const Group& group, const LlamaDivision& division, const LlamaPart& part,
                     int64_t tokens, Dtype compute, int64_t times);

// FLOPs of a step of `tokens` on n ranks that share each layer, over those of one that has them all: k and v of heads
// that several ranks hold are computed by each, and so are columns of padding; what runs again is kept by other names.
double extra_flops(const LlamaDivision& division, int ranks, int64_t tokens);

// What the trainer needs to know: the technique `data` of the data ranks, and of those that share their sequences, and
// beside it `parallel`, which outlives the result, over `group`. Its account of activations is that of a rank that has
// all layers.
Parallelism beside(Parallelism data, const TensorParallel& parallel, const Group& group, const LlamaDivision& division,
                   const std::vector<PartOfStep>& parts, const TrainOptions& options);

}  // namespace ninefold
