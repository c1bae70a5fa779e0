#include "common/nn/llama.h"

#include <cmath>

#include "common/nn/embedding.h"
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

}  // namespace ninefold
