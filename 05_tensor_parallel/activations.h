// What tensor parallelism keeps, by formula.
#pragma once

#include "05_tensor_parallel/division.h"
#include "common/nn/llama_activations.h"

namespace ninefold {

// Bytes of activations of one micro-batch on a rank of n. With the names of llama_activations.h, F = ffn, K =
// kv_dim, H = heads, each layer keeps
//   e N (4 D + (2 D + 2 K + 3 F) / n) + 4 N (2 + H / n)        without sequence parallelism
//   e N (6 D + 2 K + 3 F) / n + 4 N (2 + H) / n                with it: everything is divided
// In f8 both norms' results and hidden are kept in a byte an element, not in e, and attention's result in one more;
// with 4 bytes for each scale. K / n is at least one head. Until its weight gradients are computed, where they wait
// (not in f8), it keeps
//   e N (4 D + (2 D + 2 K + 3 F) / n)                          either way: inputs and gradients stay gathered
// A core that exchanges heads keeps attention's result twice, e N D / n more; one that adds up parts has its sums in
// its backward, N (4 D + 8 K) / n. On top of that comes the largest moment of a forward, a backward or the loss: what
// is gathered, a sum over the ranks on its way (in pieces three blocks of rows, else all rows), or two gradients.
//
// A mixture of experts has all rows, on every rank: in place of the second norm's block and the feed-forward's 3 F it
// keeps e N D and what mixture_activations says, and its result is whole before a rank takes its block.
StageActivations stage_activations(const LlamaDivision& division, const LlamaPart& part, int ranks, int64_t tokens,
                                   const Precision& precision);

}  // namespace ninefold
