// What a Llama keeps of a micro-batch between its forward and its backward, and the largest moments of both: closed
// forms, to the byte. With N tokens, e bytes an element, D = dim, K = kv_dim, F = ffn, H = heads, V = vocab, each layer
// keeps
//   e N (6 D + 2 K + 3 F) + 4 N (H + 2)      x, its norm, q, k, v, attention's out, wo's out, the second norm; gate,
//                                            up, hidden; log-sum-exp and two inverse deviations
// A layer that will run its forward again keeps
//   e N D                        x
//   + e N (2 D + 2 K + 2 F)      q, k, v, wo's out; gate, up; where matmul is saved
//   + e N D + 4 N H              attention's out, log-sum-exp, where attention is saved
// until its backward, and in that moment as much as any other. Linear layers that multiply in 8 bits keep a byte an
// element of their input, each its own (3 of the first norm, 2 of the second, 1 of attention's out, 1 of hidden), and
// 4 bytes for its scale. With the head and the loss come 2 e N D + o N V + 4 N · 3: last x, its norm, logits of o bytes
// each; losses, two statistics; and e N V - 4 N for a moment, where logits are cast to those of o bytes.
//
// On top of that comes the largest moment. In a whole backward, beside what a layer keeps, and 4 N of losses where the
// part has the head; a layer that has run its forward again has dy and the residual stream at its end, 2 e N D:
//   its SwiGLU             e N (D + 2 F)              dy, dgate, dup; dhidden in place of hidden
//   w3's and w1's          e N (2 D - F)              dy, dx; dgate and dup in place of gate, up and hidden
//   attention's backward   e N (8 D + 4 K) + 4 N (H + 1), all told: x, its norm, q, k, v, out, what came from behind
//                          and two of its descendants, dq, dk, dv; statistics
// In a backward whose products for the weights wait, inputs and gradients of the linear layers stay:
//   its SwiGLU             e N (D + 3 F)              dhidden beside hidden
//   attention's backward   e N (9 D + 4 K + 3 F) + 4 N (H + 1), all told
// and until then e N (6 D + 2 K + 3 F) a layer; with the head e N (D + V) + 4 N, with the embedding e N D.
//
// With E experts of which each token visits k, R rows of own tokens, and A that this rank's experts compute with, which
// are the same where nothing is exchanged, a layer keeps in place of 3 e N F
//   e (A (D + 3 F) + R D) + 4 R    the experts' rows, gate, up, hidden; results; each row's token
//   + 4 N (E + 2 k)                logits; each choice's row and gate
//   + 4 · 2 A                      the rows' order when they arrive, and by experts, where they are exchanged
//   + 3 e N S                      where shared experts are S wide together
// and the moments are those of its steps: see mixture_activations() in the source.
#pragma once

#include <string>
#include <vector>

#include "common/nn/llama.h"

namespace ninefold {

// What attention's core takes beside the plain one, where several ranks share a sequence; D of its q and K of its k as
// wide as they are here.
struct CoreActivations {
  // Keeps its result twice, as tokens and as heads: e N D more; and where products for the weights wait, once more in
  // its backward.
  bool exchanges_heads = false;
  bool sums_parts = false;  // its backward adds up dq, dk and dv in f32, part by part: N (4 D + 8 K) more
};

// A layer's rows for experts: of this rank's tokens, and those that its experts compute with.
struct ExpertRows {
  int64_t own = 0, arrived = 0;
};
// Of rows, by layer, that nobody exchanges.
std::vector<ExpertRows> own_expert_rows(const std::vector<int64_t>& rows);

// How several ranks share a layer's work.
struct LayerSharing {
  CoreActivations core{};
  bool exchanges_rows = false;
  int64_t expert_parts = 1;  // into which the features of every expert are cut: F is this rank's
  // By layer of the model; empty: k rows a token, which nobody drops.
  std::vector<ExpertRows> rows{};
};

// Which operands of a layer's products are rounded to 8 bits: the inputs of wq, wk and wv, of wo, of w1 and w3, of w2.
struct F8Operands {
  // `f8_linears`: as Precision's.
  F8Operands(const std::string& f8_linears, int64_t layer);
  bool attention = false, wo = false, ffn = false, w2 = false;
};

// Consecutive blocks of a Llama, with the embedding before them, and the last norm, the head and the loss behind them,
// or without: all of it, or a stage of a pipeline.
struct LlamaPart {
  int64_t first_layer = 0, layers = 0;
  bool has_embedding = true, has_head = true;
};
// Some of the model's children.
LlamaPart llama_part(const LlamaConfig& config, const Children& children);
// What a rank does of a step: so many micro-batches through a part of the model. Without a pipeline that is all of them
// through all of it.
struct PartOfStep {
  LlamaPart part;
  int64_t micro_batches;
};

// Bytes of activations of a stage, which is some of the model's children, for one micro-batch.
struct StageActivations {
  int64_t kept = 0;              // from its forward to its backward
  int64_t kept_for_weights = 0;  // from the first half of its backward to the second
  // Most at any moment of an action, with what is kept of the same micro-batch: of the forward, the output that goes to
  // the next stage included, of the whole backward, and of its first half.
  int64_t forward = 0, backward = 0, input_gradient = 0;
  // Most in a forward of an evaluation on as many samples; 0 where that is no more than in one of a training step.
  int64_t evaluation = 0;
};
// What the feed-forward of one layer keeps of a micro-batch, and its moments.
struct FeedForwardActivations {
  int64_t kept = 0, checkpoint = 0, for_weights = 0;
  int64_t first_forward = 0;  // of one that will run again, beside its input and the residual stream
  // All told, and beside what the rest of its layer keeps; `again`: the forward of one that runs again, dy included.
  int64_t forward = 0, backward = 0, input_gradient = 0, again = 0;
  bool keeps_dy = true;  // for weights
};
// Of a mixture of experts in layer `layer`.
FeedForwardActivations mixture_activations(const LlamaConfig& config, int64_t layer, int64_t tokens,
                                           const Precision& precision, const Recomputation& recomputation,
                                           const LayerSharing& sharing);

// For a micro-batch of `tokens`. `sharing.rows`, where there are any, has all layers of the model, not only the part's.
StageActivations llama_stage_activations(const LlamaConfig& config, const LlamaPart& part, int64_t tokens,
                                         const Precision& precision, const Recomputation& recomputation = {},
                                         const LayerSharing& sharing = {});

// Peak bytes of one micro-batch of `tokens` that goes forward through the whole model and back.
int64_t llama_activation_bytes(const LlamaConfig& config, int64_t tokens, const Precision& precision,
                               const Recomputation& recomputation = {}, const LayerSharing& sharing = {});

}  // namespace ninefold
