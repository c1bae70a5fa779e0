// Llama (Touvron et al. 2023, arXiv 2302.13971): pre-norm transformer blocks with RMSNorm, rotary positions,
// grouped-query attention and a gated feed-forward, or a mixture of them as in Mixtral. Names follow the reference
// code.
#pragma once

#include "common/nn/attention.h"
#include "common/nn/mixture_of_experts.h"
#include "common/nn/model.h"
#include "common/nn/norm.h"
#include "common/nn/recomputation.h"
#include "common/nn/rope_scaling.h"

namespace ninefold {

struct LlamaConfig {
  int64_t dim = 256, layers = 8, heads = 4, kv_heads = 4, ffn = 704, vocab = 256;
  double rope_theta = 10000;
  RopeScaling rope_scaling{};
  float norm_eps = 1e-5f;
  bool tied_embeddings = false;  // the output layer has the embedding's table
  MoeConfig moe{};               // with experts, each has a feed-forward of width `ffn`, in every layer

  int64_t head_dim() const { return dim / heads; }
  int64_t kv_dim() const { return kv_heads * head_dim(); }
  // As ops::rope_ takes them.
  std::vector<double> rope_frequencies() const;
  // Throws UserError where the sizes do not fit each other.
  void validate() const;
};

// h = x + attention(attention_norm(x)); out = h + feed_forward(ffn_norm(h)). [tokens, dim] -> [tokens, dim].
class TransformerBlock : public Layer {
 public:
  // `layer` counts from 0.
  TransformerBlock(const LlamaConfig& config, int64_t layer, ops::Distribution in_initial,
                   ops::Distribution out_initial);
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void visit(Visitor& visitor) override;

 private:
  RmsNorm attention_norm_, ffn_norm_;
  std::unique_ptr<Layer> attention_, feed_forward_;
};

// Children tok_embeddings, layers.0 … layers.N-1, norm, output; cross-entropy loss. Tokens i32 [rows] -> logits.
// Built without storage. Weights start from N(0, 0.02²), wo and w2 from N(0, (0.02 / sqrt(2 layers))²), the embedding
// from N(0, 1): a first residual of unit size keeps the first gradients small.
std::unique_ptr<Model> make_llama(const LlamaConfig& config);

// Closed forms, for predictions. Elements of all parameters.
int64_t llama_parameters(const LlamaConfig& config);
// FLOPs of one token's forward and backward in a sequence of `length`: 6 per matmul weight that the token visits (of
// the experts, top_k and the shared ones), the head's included and the embedding's not, plus 6 · layers · dim · length
// for the causal half of the attention scores and their product.
double llama_flops_per_token(const LlamaConfig& config, int64_t length);
// FLOPs of all matmuls that are executed for one token, exactly: the same 6 per weight, 6 · layers · dim · (length + 1)
// for attention, whose causal half includes the diagonal; and what layers compute a second time: 2 per matmul weight
// but w2's, whose result nobody reads again (experts' results make the gradients of gates), and 2 · dim · (length + 1).
// Experts that drop no token.
double llama_executed_flops_per_token(const LlamaConfig& config, int64_t length, const Recomputation& recomputation);
// What attention's core takes beside the plain one, where several ranks share a sequence; D of its q and K of its k as
// wide as they are here.
struct CoreActivations {
  bool exchanges_heads = false;  // keeps its result twice, as tokens and as heads: e N D more
  bool sums_parts = false;       // its backward adds up dq, dk and dv in f32, part by part
  bool is_plain() const { return !exchanges_heads && !sums_parts; }
};

// Which operands of a layer's products are rounded to 8 bits: the inputs of wq, wk and wv, of wo, of w1 and w3, of w2.
struct F8Operands {
  // `f8_linears`: as Precision's.
  F8Operands(const std::string& f8_linears, int64_t layer);
  bool attention = false, wo = false, ffn = false, w2 = false;
};

// Peak bytes of activations for one micro-batch of `tokens` (N), with e bytes an element. Each of the L layers keeps
//   e N (6 D + 2 K + 3 F) + 4 N (H + 2)      x, its norm, q, k, v, attention's out, wo's out, the second norm; gate,
//                                            up, hidden; log-sum-exp and two inverse deviations
// with D = dim, K = kv_dim, F = ffn, H = heads, V = vocab. On top of that comes the larger of two moments:
//   the loss                     e N (2 D + V) + 4 N · 3      last x, its norm, logits; losses, two statistics;
//                                + o N V where scores are cast to another type, of o bytes
//   the last layer's SwiGLU      e N (D + 2 F) + 4 N          dy, dgate, dup; dhidden in place of hidden; losses
// A layer that will run its forward again keeps
//   e N D                        x
//   + e N (2 D + 2 K + 2 F)      q, k, v, wo's out; gate, up; where matmul is saved
//   + e N D + 4 N H              attention's out, log-sum-exp, where attention is saved
// until its backward, and in that moment as much as any other. Linear layers that multiply in 8 bits keep a byte an
// element of their input, each its own (3 of the first norm, 2 of the second, 1 of attention's out, 1 of hidden), and
// 64 bytes for its scale.
//
// With E experts of which each token visits k, and R rows that they take (N k where none are dropped; `rows` says
// otherwise, layer by layer), in place of 3 e N F a layer keeps
//   e R (2 D + 3 F) + 4 R    the experts' rows, gate, up, hidden, results; each row's token
//   + 4 N (E + 2 k)          logits; each choice's row and gate
//   + 3 e N S                where shared experts are S wide together
// and the moment of the last layer's SwiGLU is e (N D + 2 R F) + 4 N (k + 1), with e N (D - 3 S) of the shared experts'
// done before, unless theirs was more: e N (D + 2 S) + 4 N; a layer that saves matmuls keeps 2 F of its experts' rows,
// their results and all logits.
//
// Where attention's `core` is not the plain one, the moment may be in its backward, in which it has, beside what the
// layers before keep
//   e N (7 D + 2 K) + 4 N (H + 2)        x, its norm, q, k, v, out; dy and two of its descendants; statistics
//   + N (4 D + 8 K) + e N (D + 2 K)      sums of dq, dk, dv in f32, and one part of them
int64_t llama_activation_bytes(const LlamaConfig& config, int64_t tokens, const Precision& precision,
                               const Recomputation& recomputation = {}, const std::vector<int64_t>& rows = {},
                               const CoreActivations& core = {});

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
  // Most at any moment of an action, with what is kept of the same micro-batch: of the forward, of the whole backward,
  // and of its first half.
  int64_t forward = 0, backward = 0, input_gradient = 0;
  // Most in a forward of an evaluation on as many samples; 0 where that is no more than in one of a training step.
  int64_t evaluation = 0;
};
// For a part of `tokens` (N), with e bytes an element. Layers that run their forward again keep as above, and in the
// moments of the backward as much as any other.
//   kept               each layer as above; with the head e N (2 D + V) + 4 N · 3, the V scores in the type they are
//                      cast to
//   kept_for_weights   inputs and output gradients of the linear layers, e N (6 D + 2 K + 3 F) a layer; with the head
//                      e N (D + V) + 4 N, with the embedding e N D
//   forward            kept, and the output that goes to the next stage, e N D
//   backward           in a layer's SwiGLU, as above
//   input_gradient     there too, where the linear layers' inputs stay: e N (D + 3 F); or in its attention's backward,
//                      with q, k, v and their gradients e N (9 D + 4 K + 3 F) + 4 N (H + 1) in place of what it kept
// Where the core is not the plain one, as above.
StageActivations llama_stage_activations(const LlamaConfig& config, const LlamaPart& part, int64_t tokens,
                                         const Precision& precision, const Recomputation& recomputation = {},
                                         const CoreActivations& core = {});

}  // namespace ninefold
