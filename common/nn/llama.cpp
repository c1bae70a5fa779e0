#include "common/nn/llama.h"

#include <cmath>

#include "common/nn/embedding.h"
#include "common/nn/f8_linears.h"
#include "common/nn/feed_forward.h"
#include "common/nn/linear.h"
#include "common/nn/loss.h"

namespace ninefold {
namespace {

ops::Distribution normal(double deviation) { return {.kind = ops::Distribution::Kind::normal, .width = deviation}; }

int64_t attention_weights(const LlamaConfig& config) { return config.dim * (2 * config.dim + 2 * config.kv_dim()); }
int64_t shared_width(const LlamaConfig& config) { return config.moe.shared_experts * config.ffn; }

// Matmul weights of a block that one token meets; all that there are, where `visited` is all experts.
int64_t matmul_weights_of_block(const LlamaConfig& config, int64_t visited) {
  const int64_t attention = attention_weights(config);
  if (config.moe.experts == 0) return attention + 3 * config.dim * config.ffn;
  return attention + config.dim * (config.moe.experts + 3 * (visited * config.ffn + shared_width(config)));
}
int64_t active_weights_of_block(const LlamaConfig& config) { return matmul_weights_of_block(config, config.moe.top_k); }

std::unique_ptr<Layer> make_feed_forward(const LlamaConfig& config, int64_t layer, ops::Distribution in_initial,
                                         ops::Distribution out_initial) {
  if (config.moe.experts == 0) return std::make_unique<FeedForward>(config.dim, config.ffn, in_initial, out_initial);
  std::unique_ptr<Layer> shared;
  if (config.moe.shared_experts > 0) {
    shared = std::make_unique<FeedForward>(config.dim, shared_width(config), in_initial, out_initial);
  }
  return std::make_unique<MixtureOfExperts>(
      config.moe, layer, std::make_unique<TopKRouter>(config.moe, config.dim, layer, config.layers, in_initial),
      std::make_unique<GroupedExperts>(config.moe.experts, config.dim, config.ffn, in_initial, out_initial),
      std::move(shared));
}

// Bytes of the activations of one block, for `tokens`, of which experts take `rows`; as they are, and what is otherwise
// where operands are rounded.
struct BlockActivations {
  int64_t kept = 0, checkpoint = 0, swiglu = 0;

  // Every linear layer keeps the 8-bit form of its own input; otherwise those that share an input keep it once.
  void round(const F8Operands& f8, const LlamaConfig& config, int64_t tokens, int64_t e) {
    const int64_t hidden = f8.w2 ? (e - 1) * config.ffn : 0;  // less
    kept += tokens * ((f8.attention ? 3 - e : 0) + (f8.wo ? 1 : 0) + (f8.ffn ? 2 - e : 0)) * config.dim;
    kept -= tokens * hidden;
    swiglu += tokens * hidden;  // dhidden takes its place
  }
};

BlockActivations block_activations(const LlamaConfig& config, int64_t tokens, int64_t e,
                                   const Recomputation& recomputation, int64_t rows) {
  const int64_t dim = config.dim, kv = config.kv_dim(), ffn = config.ffn;
  const int64_t saves_matmul = recomputation.saves(SavedOperation::matmul) ? 1 : 0;
  BlockActivations bytes;
  bytes.kept = tokens * (e * (6 * dim + 2 * kv) + 4 * (config.heads + 2));
  bytes.checkpoint = tokens * e * (dim + saves_matmul * (2 * dim + 2 * kv));
  if (recomputation.saves(SavedOperation::attention)) bytes.checkpoint += tokens * (e * dim + 4 * config.heads);
  if (config.moe.experts == 0) {
    bytes.kept += tokens * e * 3 * ffn;
    bytes.checkpoint += saves_matmul * tokens * e * 2 * ffn;
    bytes.swiglu = tokens * (e * (dim + 2 * ffn) + 4);
    return bytes;
  }
  const int64_t experts = config.moe.experts, top_k = config.moe.top_k, shared = shared_width(config);
  const int64_t shared_bytes = tokens * e * 3 * shared;
  bytes.kept += rows * (e * (2 * dim + 3 * ffn) + 4) + tokens * 4 * (experts + 2 * top_k) + shared_bytes;
  bytes.checkpoint += saves_matmul * (rows * e * (2 * ffn + dim) + tokens * (e * 2 * shared + 4 * experts));
  const int64_t done = shared > 0 ? tokens * e * dim - shared_bytes : 0;
  bytes.swiglu = tokens * e * dim + rows * e * 2 * ffn + tokens * 4 * (top_k + 1) + done;
  bytes.swiglu = std::max(bytes.swiglu, tokens * (e * (dim + 2 * shared) + 4));
  return bytes;
}

// Bytes a token in the backward of an attention whose core is not the plain one, with all that its layer has then; and
// what the sums of its parts take of that.
int64_t sums_of_core(const LlamaConfig& config, const CoreActivations& core) {
  return core.sums_parts ? 4 * config.dim + 8 * config.kv_dim() : 0;
}
int64_t in_core(const LlamaConfig& config, int64_t e, const CoreActivations& core) {
  if (core.is_plain()) return 0;
  return e * (8 * config.dim + 4 * config.kv_dim()) + 4 * (config.heads + 2) + sums_of_core(config, core);
}
int64_t kept_by_core(const LlamaConfig& config, int64_t e, const CoreActivations& core) {
  return core.exchanges_heads ? e * config.dim : 0;
}

// Bytes a token that a block keeps which will run its forward again.
int64_t checkpoint_of_block(const LlamaConfig& config, int64_t e, const Recomputation& recomputation) {
  int64_t bytes = e * config.dim;
  if (recomputation.saves(SavedOperation::matmul)) bytes += e * (2 * config.dim + 2 * config.kv_dim() + 2 * config.ffn);
  if (recomputation.saves(SavedOperation::attention)) bytes += e * config.dim + 4 * config.heads;
  return bytes;
}

}  // namespace

std::vector<double> LlamaConfig::rope_frequencies() const {
  return rope_scaling.scaled(ops::rope_frequencies(head_dim(), rope_theta));
}

void LlamaConfig::validate() const {
  const std::pair<const char*, int64_t> sizes[] = {{"dim", dim},           {"layers", layers}, {"heads", heads},
                                                   {"kv-heads", kv_heads}, {"ffn", ffn},       {"vocab", vocab}};
  for (const auto& [name, value] : sizes) require(value > 0, "{} ({}) must be at least 1", name, value);
  require(heads % kv_heads == 0, "heads ({}) must be divisible by kv-heads ({})", heads, kv_heads);
  require(dim % heads == 0, "dim ({}) must be divisible by heads ({})", dim, heads);
  require(head_dim() % 2 == 0, "dim / heads ({}) must be even, because rotary positions turn pairs", head_dim());
  rope_scaling.validate();
  moe.validate();
}

TransformerBlock::TransformerBlock(const LlamaConfig& config, int64_t layer, ops::Distribution in_initial,
                                   ops::Distribution out_initial)
    : attention_norm_(config.dim, config.norm_eps),
      ffn_norm_(config.dim, config.norm_eps),
      attention_(std::make_unique<Attention>(AttentionConfig{.dim = config.dim,
                                                             .heads = config.heads,
                                                             .kv_heads = config.kv_heads,
                                                             .rope_frequencies = config.rope_frequencies(),
                                                             .in_initial = in_initial,
                                                             .out_initial = out_initial})),
      feed_forward_(make_feed_forward(config, layer, in_initial, out_initial)) {}

Tensor TransformerBlock::forward(const Tensor& x, Saved& saved) {
  const Tensor attended = attention_->forward(attention_norm_.forward(x, saved), saved);
  const auto [sum, normalised] = ffn_norm_.forward_sum(x, attended, saved);
  feed_forward_->forward_add(normalised, saved, sum);
  return sum;
}

Tensor TransformerBlock::backward(const Tensor& dy, Saved& saved) {
  const Tensor dsum = ffn_norm_.backward_sum(feed_forward_->backward(dy, saved), dy, saved);
  return attention_norm_.backward_sum(attention_->backward(dsum, saved), dsum, saved);
}

void TransformerBlock::visit(Visitor& visitor) {
  visitor.member("attention_norm", attention_norm_);
  visitor.slot("attention", attention_);
  visitor.member("ffn_norm", ffn_norm_);
  visitor.slot("feed_forward", feed_forward_);
}

F8Operands::F8Operands(const std::string& f8_linears, int64_t layer) {
  if (f8_linears.empty()) return;
  const auto has = [&](const char* name) {
    return is_at_or_below(f8_linears, fmt::format("layers.{}.{}", layer, name));
  };
  attention = has("attention.wq");
  wo = has("attention.wo");
  ffn = has("feed_forward.w1");
  w2 = has("feed_forward.w2");
}

std::unique_ptr<Model> make_llama(const LlamaConfig& config) {
  config.validate();
  const ops::Distribution in_initial = normal(0.02);
  const ops::Distribution out_initial = normal(0.02 / std::sqrt(2.0 * static_cast<double>(config.layers)));
  auto model = std::make_unique<Model>(std::make_unique<CrossEntropyLoss>());
  auto embedding =
      std::make_unique<Embedding>(config.vocab, config.dim, config.tied_embeddings ? in_initial : normal(1));
  Parameter& table = embedding->weight;
  model->add("tok_embeddings", std::move(embedding));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    model->add(fmt::format("layers.{}", layer),
               std::make_unique<TransformerBlock>(config, layer, in_initial, out_initial));
  }
  model->add("norm", std::make_unique<RmsNorm>(config.dim, config.norm_eps));
  if (config.tied_embeddings) {
    model->add("output", std::make_unique<Linear>(table));
  } else {
    model->add("output", std::make_unique<Linear>(config.dim, config.vocab, in_initial));
  }
  model->name_parameters();
  return model;
}

int64_t llama_parameters(const LlamaConfig& config) {
  return config.layers * (matmul_weights_of_block(config, config.moe.experts) + 2 * config.dim) + config.dim +
         (config.tied_embeddings ? 1 : 2) * config.vocab * config.dim;
}

double llama_flops_per_token(const LlamaConfig& config, int64_t length) {
  const int64_t weights = config.layers * active_weights_of_block(config) + config.vocab * config.dim;
  return 6.0 * static_cast<double>(weights) + 6.0 * static_cast<double>(config.layers * config.dim * length);
}

double llama_executed_flops_per_token(const LlamaConfig& config, int64_t length, const Recomputation& recomputation) {
  const int64_t weights = config.layers * active_weights_of_block(config) + config.vocab * config.dim;
  const int64_t attention = config.dim * (length + 1);
  int64_t again = 0;  // in a layer that runs again
  const int64_t unread = config.dim * (config.moe.experts == 0 ? config.ffn : shared_width(config));  // w2's
  if (!recomputation.saves(SavedOperation::matmul)) again += active_weights_of_block(config) - unread;
  if (!recomputation.saves(SavedOperation::attention)) again += attention;
  const int64_t layers_again = recomputation.every > 0 ? config.layers / recomputation.every : 0;
  return static_cast<double>(6 * weights + 6 * config.layers * attention + 2 * layers_again * again);
}

int64_t llama_activation_bytes(const LlamaConfig& config, int64_t tokens, const Precision& precision,
                               const Recomputation& recomputation, const std::vector<int64_t>& rows,
                               const CoreActivations& core) {
  const int64_t e = size_of(precision.compute);
  const int64_t cast_scores = precision.output == precision.compute ? 0 : size_of(precision.output) * config.vocab;
  const int64_t loss = e * (2 * config.dim + config.vocab) + cast_scores + 4 * 3;
  int64_t held = 0, peak = 0;
  int64_t scales = 0, scales_again = 0;  // that are kept, and in the backward of one that runs again
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const F8Operands f8(precision.f8_linears, layer);
    const int64_t taken = rows.empty() ? tokens * config.moe.top_k : rows.at(static_cast<size_t>(layer));
    BlockActivations block = block_activations(config, tokens, e, recomputation, taken);
    block.round(f8, config, tokens, e);
    block.kept += tokens * kept_by_core(config, e, core);
    const int64_t own_scales = 3 * f8.attention + f8.wo + 2 * f8.ffn + f8.w2;
    if (recomputation.applies_to(layer)) scales_again = std::max(scales_again, own_scales);
    if (!recomputation.applies_to(layer)) scales += own_scales;
    // In this layer's backward, when those after it are done.
    peak = std::max({peak, held + block.kept + block.swiglu, held + tokens * in_core(config, e, core)});
    held += recomputation.applies_to(layer) ? block.checkpoint : block.kept;
  }
  return std::max(peak, held + tokens * loss) + (scales + scales_again) * allocation_unit;
}

LlamaPart llama_part(const LlamaConfig& config, const Children& children) {
  const auto blocks = static_cast<size_t>(config.layers);  // children 1 … blocks, behind the embedding
  const size_t begin = std::max<size_t>(children.begin, 1), end = std::min(children.end, blocks + 1);
  return {.first_layer = static_cast<int64_t>(begin) - 1,
          .layers = static_cast<int64_t>(end - begin),
          .has_embedding = children.begin == 0,
          .has_head = children.end > blocks + 1};
}

StageActivations llama_stage_activations(const LlamaConfig& config, const LlamaPart& part, int64_t tokens,
                                         const Precision& precision, const Recomputation& recomputation,
                                         const CoreActivations& core) {
  const int64_t e = size_of(precision.compute), dim = config.dim, kv = config.kv_dim(), ffn = config.ffn;
  const int64_t weights = e * (6 * dim + 2 * kv + 3 * ffn);
  const int64_t layer = weights + 4 * (config.heads + 2) + kept_by_core(config, e, core);
  const int64_t checkpoint = checkpoint_of_block(config, e, recomputation);
  const int64_t scores = config.vocab * size_of(precision.output);
  const int64_t cast = part.has_head && precision.output != precision.compute ? e * config.vocab : 0;
  const int64_t head = part.has_head ? e * 2 * dim + scores + 4 * 3 : 0;
  const int64_t losses = part.has_head ? 4 : 0, head_weights = part.has_head ? e * (dim + config.vocab) + losses : 0;
  const int64_t swiglu = layer + e * (dim + 3 * ffn);
  const int64_t attention = e * (9 * dim + 4 * kv + 3 * ffn) + 4 * (config.heads + 1) + sums_of_core(config, core);
  StageActivations bytes;
  for (int64_t i = 0; i < part.layers; ++i) {
    const bool again = recomputation.applies_to(part.first_layer + i);
    const int64_t first_forward = checkpoint + e * (2 * dim + 3 * ffn), behind = part.layers - 1 - i;
    bytes.forward = std::max(bytes.forward, bytes.kept + (again ? first_forward : layer));
    bytes.backward = std::max({bytes.backward, bytes.kept + layer + e * (dim + 2 * ffn) + losses,
                               bytes.kept + in_core(config, e, core) + losses});
    bytes.input_gradient =
        std::max(bytes.input_gradient, bytes.kept + std::max(swiglu, attention) + behind * weights + head_weights);
    bytes.kept += again ? checkpoint : layer;
  }
  bytes.kept += head;
  bytes.kept_for_weights = part.layers * weights + head_weights + (part.has_embedding ? e * dim : 0);
  bytes.forward = std::max(bytes.forward, bytes.kept + (part.has_head ? cast : e * dim));
  bytes.backward = std::max(bytes.backward, bytes.kept + cast);
  bytes.input_gradient = std::max(bytes.input_gradient, bytes.kept + cast + (part.has_head ? 2 * e * dim : 0));
  for (int64_t* of : {&bytes.kept, &bytes.kept_for_weights, &bytes.forward, &bytes.backward, &bytes.input_gradient}) {
    *of *= tokens;
  }
  return bytes;
}

}  // namespace ninefold
