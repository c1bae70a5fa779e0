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

}  // namespace ninefold
