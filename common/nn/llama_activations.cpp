#include "common/nn/llama_activations.h"

#include <algorithm>

#include "common/nn/f8_linears.h"

namespace ninefold {
namespace {

// Of one layer and N tokens, with the names of the header: bytes of an activation as wide as D, K, F, S and E, in the
// type of computation.
struct Sizes {
  Sizes(const LlamaConfig& config, int64_t tokens, int64_t element)
      : config(config),
        tokens(tokens),
        element(element),
        dim(tokens * element * config.dim),
        kv(tokens * element * config.kv_dim()),
        ffn(tokens * element * config.ffn),
        shared(config.moe.shared_experts * ffn),
        scores(tokens * element * config.moe.experts),
        logits(4 * tokens * config.moe.experts),
        gates(4 * tokens * config.moe.top_k),
        statistics(4 * tokens * config.heads),
        deviation(4 * tokens) {}

  const LlamaConfig& config;
  int64_t tokens, element;
  int64_t dim, kv, ffn, shared, scores;
  int64_t logits, gates;          // of a router, f32; choices take as much as gates
  int64_t statistics, deviation;  // log-sum-exp; one inverse deviation a token, or one loss
};

FeedForwardActivations dense(const Sizes& of, const Recomputation& recomputation) {
  const int64_t all = 3 * of.ffn;
  return {.kept = all,
          .checkpoint = recomputation.saves(SavedOperation::matmul) ? 2 * of.ffn : 0,
          .for_weights = all,
          .first_forward = all,
          .forward = all,
          // dy; dgate, dup, and dhidden in place of hidden; or dx, with dgate and dup in place of all three
          .backward = all + of.dim + std::max(2 * of.ffn, of.dim - of.ffn),
          .input_gradient = all + of.dim + all,
          .again = all + 2 * of.dim};  // dy, the residual stream
}

// Bytes of rows for experts, as wide as D and F: `own` of this rank's tokens, and those that its experts compute with.
struct RowSizes {
  RowSizes(const Sizes& of, const ExpertRows& rows, const LayerSharing& sharing)
      : own(rows.own * of.element * of.config.dim),
        dim(rows.arrived * of.element * of.config.dim),
        ffn(rows.arrived * of.element * of.config.ffn / sharing.expert_parts),
        order(sharing.exchanges_rows ? 2 * 4 * rows.arrived : 0),
        plan(4 * rows.own + 2 * of.gates) {}

  int64_t own, dim, ffn;
  int64_t order, plan;  // indices: of rows that arrive; each row's token, each choice's row and gate
};

// The largest moment of a mixture's backward, beside all that the layer keeps. `waits`: products for the weights are
// computed later, so that their operands stay.
int64_t mixture_backward(const Sizes& of, const RowSizes& rows, bool exchanges, bool waits) {
  // In the shared experts: dy; dgate, dup, and dhidden beside or in place of hidden; or dx, with dgate and dup in place
  // of gate, up and hidden. What is left of them then is their dx.
  const int64_t shared_dx = of.dim - (waits ? 0 : of.shared);
  const int64_t in_shared = of.shared > 0 ? of.dim + std::max((waits ? 3 : 2) * of.shared, shared_dx) : 0;
  const int64_t after_shared = of.shared > 0 ? of.dim - (waits ? 0 : 3 * of.shared) : 0;
  // In the experts: gradients of rows; or dgate, dup and dhidden. The gradients of results are in place of results.
  const int64_t in_experts = std::max(rows.dim, (waits ? 3 : 2) * rows.ffn);
  const int64_t after_experts = waits ? rows.dim : -3 * rows.ffn;
  const int64_t in_combine = after_experts + std::max(2 * rows.dim, rows.dim + rows.own);  // in two orders
  const int64_t routed =
      exchanges ? std::max({rows.own, rows.dim + in_experts, in_combine}) : std::max(rows.own, in_experts);
  // In the router: dx; gradients of logits, also in the type of computation. The experts' rows are gone, too.
  const int64_t dlogits = of.logits + (of.element == 4 ? 0 : of.scores);
  const int64_t in_router = of.dim + dlogits + after_experts - (waits ? 0 : rows.dim) - rows.order;
  return std::max(in_shared, of.dim + of.gates + after_shared + std::max(routed, in_router));
}

// What one layer takes. Moments are all told, without what other layers keep.
struct LayerBytes {
  int64_t kept = 0, checkpoint = 0, for_weights = 0;
  int64_t forward = 0, backward = 0, input_gradient = 0;
  int64_t in_core = 0;  // in attention's backward

  LayerBytes(const Sizes& of, const FeedForwardActivations& ffn, const CoreActivations& core,
             const Recomputation& recomputation, bool runs_again) {
    const int64_t heads_again = core.exchanges_heads ? of.dim : 0;
    const int64_t sums = core.sums_parts ? 4 * (of.dim + 2 * of.kv) / of.element : 0;
    const int64_t attention = 6 * of.dim + 2 * of.kv + of.statistics + 2 * of.deviation + heads_again;
    // x, its norm, q, k, v, out; dy, d(sum), dout; dq, dk, dv. The feed-forward's part is gone.
    in_core = 8 * of.dim + 4 * of.kv + of.statistics + of.deviation + heads_again + sums;
    kept = attention + ffn.kept;
    checkpoint = of.dim + ffn.checkpoint;
    if (recomputation.saves(SavedOperation::matmul)) checkpoint += 2 * of.dim + 2 * of.kv;
    if (recomputation.saves(SavedOperation::attention)) checkpoint += of.dim + of.statistics;
    for_weights = (ffn.keeps_dy ? 6 : 5) * of.dim + 2 * of.kv + ffn.for_weights;
    forward = runs_again ? checkpoint + 2 * of.dim + ffn.first_forward : attention + ffn.forward;
    const int64_t again = runs_again ? attention + ffn.again : 0;
    backward = std::max(attention + ffn.backward, again);
    // The feed-forward's input and operands wait; of a core that exchanges heads, wo's input, too.
    input_gradient =
        std::max({attention + ffn.input_gradient, in_core + of.dim + heads_again + ffn.for_weights, again});
  }

  // Every linear layer keeps the 8-bit form of its own input; otherwise those that share an input keep it once.
  void round(const F8Operands& f8, const Sizes& of) {
    const int64_t width = of.dim / of.element, hidden = f8.w2 ? of.ffn - of.ffn / of.element : 0;
    const int64_t inputs =
        (f8.attention ? 3 * width - of.dim : 0) + (f8.wo ? width : 0) + (f8.ffn ? 2 * width - of.dim : 0);
    const int64_t scale = size_of(Dtype::f32), scales = scale * (3 * f8.attention + f8.wo + 2 * f8.ffn);
    kept += inputs + scales - hidden + scale * f8.w2;
    forward += inputs + scales - hidden + scale * f8.w2;
    backward += inputs + scales;  // dhidden takes hidden's place
    if (f8.attention) in_core += 3 * width - of.dim + 3 * scale;
  }
};

LayerBytes bytes_of_layer(const Sizes& of, int64_t layer, const Precision& precision,
                          const Recomputation& recomputation, const LayerSharing& sharing) {
  const FeedForwardActivations ffn =
      of.config.moe.experts == 0 ? dense(of, recomputation)
                                 : mixture_activations(of.config, layer, of.tokens, precision, recomputation, sharing);
  LayerBytes bytes(of, ffn, sharing.core, recomputation, recomputation.applies_to(layer));
  bytes.round(F8Operands(precision.f8_linears, layer), of);
  return bytes;
}

// The last norm, the head and the loss.
struct HeadBytes {
  int64_t kept = 0, for_weights = 0, losses = 0;
  int64_t cast = 0;       // more than is kept, while scores become another type
  int64_t gradients = 0;  // more than is kept, while the head's dx is made

  HeadBytes(const Sizes& of, const Precision& precision) {
    const int64_t scores = of.tokens * of.config.vocab * size_of(precision.output);
    const int64_t logits = of.tokens * of.config.vocab * of.element;
    losses = of.deviation;
    kept = 2 * of.dim + scores + 3 * of.deviation;
    for_weights = of.dim + logits + losses;
    // Of the three numbers a token there are two: the norm's deviation and, after the loss, its losses.
    cast = precision.output == precision.compute ? 0 : logits - of.deviation;
    // dx, the norm's dx, and the logits' gradient, which has taken the place of scores.
    gradients = 2 * of.dim + logits - scores;
  }
  HeadBytes() = default;
};

}  // namespace

FeedForwardActivations mixture_activations(const LlamaConfig& config, int64_t layer, int64_t tokens,
                                           const Precision& precision, const Recomputation& recomputation,
                                           const LayerSharing& sharing) {
  const Sizes of(config, tokens, size_of(precision.compute));
  const int64_t all = tokens * config.moe.top_k;
  const ExpertRows experts = sharing.rows.empty() ? ExpertRows{all, all} : sharing.rows.at(static_cast<size_t>(layer));
  const RowSizes rows(of, experts, sharing);
  const bool exchanges = sharing.exchanges_rows;
  const bool saves_products = recomputation.saves(SavedOperation::matmul);
  FeedForwardActivations bytes;
  bytes.kept = rows.dim + 3 * rows.ffn + rows.own + rows.plan + rows.order + of.logits + 3 * of.shared;
  if (saves_products) bytes.checkpoint = 2 * rows.ffn + rows.dim + 2 * of.shared + of.logits;
  bytes.for_weights = of.scores + 2 * rows.dim + 3 * rows.ffn + 3 * of.shared;
  bytes.keeps_dy = of.shared > 0;
  // Results come back in two orders beside the residual stream, and before the shared experts begin.
  const int64_t combine = exchanges ? of.dim + std::max(2 * rows.dim, rows.own + rows.dim) - 3 * of.shared : 0;
  bytes.forward = bytes.kept + std::max<int64_t>(combine, 0);
  const int64_t products = rows.ffn + (saves_products ? 0 : std::max(2 * rows.ffn, rows.dim));
  const int64_t exchanged = exchanges ? rows.own + std::max(rows.dim, rows.own) : 0;
  bytes.first_forward = rows.plan + rows.order + rows.dim + std::max(products, exchanged);
  const int64_t combine_again = exchanges ? combine + of.dim + (saves_products ? 2 * of.shared : 0) : 0;
  bytes.again = bytes.kept + std::max(2 * of.dim, combine_again);
  bytes.backward = bytes.kept + mixture_backward(of, rows, exchanges, false);
  bytes.input_gradient = bytes.kept + mixture_backward(of, rows, exchanges, true);
  return bytes;
}

std::vector<ExpertRows> own_expert_rows(const std::vector<int64_t>& rows) {
  std::vector<ExpertRows> own;
  for (const int64_t count : rows) own.push_back({count, count});
  return own;
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
                                         const LayerSharing& sharing) {
  const Sizes of(config, tokens, size_of(precision.compute));
  const HeadBytes head = part.has_head ? HeadBytes(of, precision) : HeadBytes();
  StageActivations bytes;
  int64_t behind = head.for_weights;  // of the layers behind, and the head
  std::vector<LayerBytes> layers;
  for (int64_t i = 0; i < part.layers; ++i) {
    layers.push_back(bytes_of_layer(of, part.first_layer + i, precision, recomputation, sharing));
    behind += layers.back().for_weights;
  }
  bytes.kept_for_weights = behind + (part.has_embedding ? of.dim : 0);
  for (int64_t i = 0; i < part.layers; ++i) {
    const LayerBytes& block = layers[static_cast<size_t>(i)];
    behind -= block.for_weights;
    bytes.forward = std::max(bytes.forward, bytes.kept + block.forward);
    const int64_t in_layer = std::max(block.backward, block.in_core);
    bytes.backward = std::max(bytes.backward, bytes.kept + in_layer + head.losses);
    bytes.input_gradient = std::max(bytes.input_gradient, bytes.kept + block.input_gradient + behind);
    bytes.kept += recomputation.applies_to(part.first_layer + i) ? block.checkpoint : block.kept;
  }
  bytes.kept += head.kept;
  bytes.forward = std::max(bytes.forward, bytes.kept + (part.has_head ? head.cast : of.dim));
  bytes.backward = std::max(bytes.backward, bytes.kept + head.cast);
  bytes.input_gradient = std::max({bytes.input_gradient, bytes.kept + head.cast, bytes.kept + head.gradients});
  return bytes;
}

int64_t llama_activation_bytes(const LlamaConfig& config, int64_t tokens, const Precision& precision,
                               const Recomputation& recomputation, const LayerSharing& sharing) {
  const StageActivations all =
      llama_stage_activations(config, {.layers = config.layers}, tokens, precision, recomputation, sharing);
  return std::max(all.forward, all.backward);
}

}  // namespace ninefold
