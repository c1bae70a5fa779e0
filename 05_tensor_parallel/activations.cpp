#include "05_tensor_parallel/activations.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ninefold {
namespace {

// Bytes a token, on one of n ranks.
struct PerToken {
  PerToken(const LlamaDivision& division, int64_t n, int64_t e)
      : all(e * division.config.dim),
        stream(division.sequence_parallel ? all / n : all),
        gathered(division.sequence_parallel ? all : 0),
        heads(all / n),
        kv_heads(e * std::max(division.config.kv_heads / n, int64_t{1}) * division.config.head_dim()),
        ffn(e * division.config.ffn / n),
        columns(e * ((division.config.vocab + n - 1) / n)),
        statistics(4 * division.config.heads / n),
        deviation(division.sequence_parallel ? 4 / static_cast<double>(n) : 4),
        heads_again(division.sharing.core.exchanges_heads ? heads : 0),
        sums(division.sharing.core.sums_parts ? (4 * heads + 8 * kv_heads) / static_cast<double>(e) : 0) {}

  double all;              // an activation on its own
  double stream;           // one of the residual stream: a block of its rows under sequence parallelism
  double gathered;         // beside it, for as long as a layer needs it whole
  double heads, kv_heads;  // q, attention's out; k, v
  double ffn;              // gate, up, hidden
  double columns;          // logits of this rank
  double statistics;       // log-sum-exp
  double deviation;        // of a norm
  double heads_again;      // attention's out, which a core that exchanges heads keeps twice
  double sums;             // of dq, dk, dv in f32, in the backward of a core that computes them in parts
};

// The same of a layer, some of whose operands are of a byte an element. What is rounded exists twice for a while.
struct LayerBytes : PerToken {
  LayerBytes(const PerToken& bytes, const F8Operands& operands, double e, double scale)
      : PerToken(bytes), f8(operands) {
    const auto operand = [e](bool rounded, double width) { return rounded ? width / e : width; };
    attention_input = operand(f8.attention, stream);
    ffn_input = operand(f8.ffn, stream);
    ffn_whole = operand(f8.ffn, gathered > 0 ? gathered : stream);
    hidden = operand(f8.w2, ffn);
    rounded_out = f8.wo ? heads / e : 0;
    dgate = f8.ffn ? ffn / e : 0;
    dy = f8.w2 ? stream / e : 0;
    dy_whole = operand(f8.w2, gathered);
    scales = (f8.attention + f8.wo + f8.ffn + f8.w2) * scale;
    hidden_scale = f8.w2 * scale;
    ffn_scale = f8.ffn * scale;
  }
  F8Operands f8;
  double attention_input, ffn_input, hidden;  // as they are kept
  double rounded_out;                         // of attention, beside what attention itself keeps
  double ffn_whole;                           // what w1 and w3 multiply
  double dgate, dy;                           // rounded gradients of w1's and of w2's result
  double dy_whole;                            // dy of all rows, where they are gathered
  double scales;                              // of all operands that are kept, each one's share of a token
  double hidden_scale, ffn_scale;             // among them: gone when w2's, or w1's and w3's, are multiplied

  // What the backward needs of the feed-forward, and of the layer.
  double kept_ffn() const { return 2 * ffn + hidden; }
  double kept() const {
    return 2 * stream + attention_input + ffn_input + 2 * heads + heads_again + rounded_out + 2 * kv_heads +
           kept_ffn() + statistics + 2 * deviation + scales;
  }
  // In the backward of attention's core, all told: x, its norm, q, k, v, out; what came from behind and two of its
  // descendants; dq, dk, dv; statistics; where parts are added up, their sums.
  double in_core() const {
    return 3 * stream + attention_input + 4 * heads + heads_again + 4 * kv_heads + statistics + deviation + sums;
  }
  // Beside what is kept: the second norm's result, and hidden, before they were rounded.
  double ffn_input_before() const { return f8.ffn ? stream : 0; }
  double hidden_before() const { return f8.w2 ? ffn : 0; }
};

double checkpoint(const PerToken& bytes, const Recomputation& recomputation) {
  double kept = bytes.stream;
  if (recomputation.saves(SavedOperation::matmul)) kept += bytes.heads + 2 * bytes.kv_heads;
  if (recomputation.saves(SavedOperation::attention)) kept += bytes.heads + bytes.statistics;
  if (recomputation.saves(SavedOperation::reduce_scatter)) kept += bytes.stream;
  return kept;
}

// While a row-parallel product becomes its sum over the ranks: the partial sum and, where that is divided, a block of
// rows; in pieces, three of them.
double summed(const PerToken& bytes, const LlamaDivision& division) {
  if (division.async) return 3 * bytes.stream;
  return bytes.all + (division.sequence_parallel ? bytes.stream : 0);
}

// The feed-forward's input where it is gathered.
double gathered_input(const LayerBytes& bytes) { return bytes.gathered > 0 ? bytes.ffn_whole : 0; }

// The largest moment of a layer's forward: all that is kept and the sum, beside the feed-forward's input while there is
// no hidden yet, or w2's result.
double in_forward(const LayerBytes& bytes, const LlamaDivision& division) {
  return bytes.kept() + bytes.stream + bytes.ffn_input_before() +
         std::max(gathered_input(bytes) - bytes.hidden, bytes.hidden_before() + summed(bytes, division));
}

// The same where the layer runs again later: beside the checkpoint there is only what the forward still needs.
double in_first_forward(const LayerBytes& bytes, const LlamaDivision& division) {
  const Recomputation& recomputation = division.recomputation;
  const bool has_products = recomputation.saves(SavedOperation::matmul);
  const double attended = recomputation.saves(SavedOperation::reduce_scatter) ? 0 : bytes.stream;
  const double before = checkpoint(bytes, recomputation) + (has_products ? 2 * bytes.ffn : 0) + attended +
                        2 * bytes.stream;  // the norm's result, the sum
  const double gate_and_up = has_products ? 0 : 2 * bytes.ffn;
  const double input = gathered_input(bytes) + (bytes.f8.ffn ? bytes.ffn_input : 0);
  const double hidden = bytes.ffn + (bytes.f8.w2 ? bytes.hidden : 0);
  return before + std::max({gate_and_up + input, gate_and_up + hidden, hidden + summed(bytes, division)});
}

// In a layer's whole backward, beside what is kept.
double in_backward(const LayerBytes& bytes, const LlamaDivision& division, bool runs_again) {
  // dy, sum; w1's input, or hidden before it is rounded.
  const double again = 2 * bytes.stream + bytes.ffn_input_before() +
                       std::max({gathered_input(bytes) - bytes.hidden, bytes.hidden_before(), 0.0});
  // w2: dy, gathered, and dhidden in place of hidden; in pieces dhidden, too, before hidden goes.
  const double dhidden = bytes.ffn - bytes.hidden;
  const double dy_whole = bytes.gathered > 0 ? bytes.dy_whole : bytes.dy;
  const double w2 = bytes.stream + dy_whole + std::max(dhidden, bytes.gathered > 0 ? bytes.dy : 0.0) +
                    (division.async ? bytes.ffn : 0);
  const double swiglu = bytes.stream + dhidden + 2 * bytes.ffn;  // dy; dgate, dup
  // w3, w1: dgate, dup and dx, dy, and their input, which is not kept any more; in pieces the block of rows that is
  // being gathered, too.
  const double dx = 2 * bytes.ffn - bytes.kept_ffn() + bytes.all + bytes.stream - bytes.ffn_input + bytes.ffn_whole +
                    bytes.dgate + (division.async ? bytes.stream : 0);
  return std::max({runs_again ? again : 0, w2 - bytes.hidden_scale, swiglu - bytes.hidden_scale,
                   dx - bytes.hidden_scale - bytes.ffn_scale});
}

// In the first half of a layer's backward, all told, when it has come to attention. `operands` wait for the weights,
// and wo's gradient among them. In the core's backward, with q, k, v and their gradients; in wq's, dx and the input.
double in_attention(const LayerBytes& bytes, const LlamaDivision& division, double operands) {
  const double streams = (division.sequence_parallel ? 4 : 2) * bytes.stream;  // dy, d(sum); the input, its norm
  const double behind = operands + streams + bytes.deviation;
  const double core =
      behind + 4 * bytes.heads + 2 * bytes.heads_again + 4 * bytes.kv_heads + bytes.statistics + bytes.sums;
  const double wq =
      behind + 2 * bytes.heads + 2 * bytes.kv_heads + bytes.gathered + bytes.all + (division.async ? bytes.stream : 0);
  return std::max(core, wq);
}

// In all of that half: the linear layers' inputs and the gradients of their outputs stay, gathered. In the SwiGLU,
// beside dy, all of dy, dhidden, dgate and dup; in w1's backward, dgate, dup, dx and the input; in the second norm's,
// dx and d(sum); in the attention's.
double in_input_gradient(const LayerBytes& bytes, const LlamaDivision& division) {
  const double piece = division.async ? bytes.stream : 0;
  const double swiglu = bytes.kept() + bytes.stream + bytes.gathered + 3 * bytes.ffn;
  const double w1 = bytes.kept() + bytes.stream + 2 * bytes.gathered + bytes.all + piece;
  const double norm = bytes.kept() + 3 * bytes.stream + 2 * bytes.gathered;
  return std::max({swiglu, w1, norm, in_attention(bytes, division, 3 * bytes.all + 3 * bytes.ffn)});
}

// What a layer takes; moments are all told, without what other layers keep.
struct LayerMoments {
  double kept, checkpoint, for_weights;
  double forward, backward, input_gradient;
};

LayerMoments dense_layer(const LayerBytes& bytes, const LlamaDivision& division, bool again) {
  return {.kept = bytes.kept(),
          .checkpoint = checkpoint(bytes, division.recomputation) +
                        (division.recomputation.saves(SavedOperation::matmul) ? 2 * bytes.ffn : 0),
          .for_weights = 4 * bytes.all + 2 * bytes.heads + 2 * bytes.kv_heads + 3 * bytes.ffn,
          .forward = again ? in_first_forward(bytes, division) : in_forward(bytes, division),
          .backward = std::max(bytes.kept() + in_backward(bytes, division, again), bytes.in_core()),
          .input_gradient = in_input_gradient(bytes, division)};
}

// `mixture`: bytes of all `tokens`.
LayerMoments mixture_layer(const LayerBytes& bytes, const FeedForwardActivations& mixture, double tokens,
                           const LlamaDivision& division, bool runs_again) {
  const double kept_here = bytes.kept() - bytes.kept_ffn() - bytes.ffn_input + bytes.all;
  const double block = division.sequence_parallel ? bytes.stream : 0;
  // The sum so far and the norm's block; and the result, of all rows and, at the end, this rank's.
  const double around = kept_here + bytes.stream + block;
  const double result = static_cast<double>(mixture.kept) / tokens + bytes.all + block;
  const double forward = around + std::max(mixture.forward / tokens, result);
  // Once more, beside dy; the mixture counts all rows of it.
  const double again = around + bytes.stream + std::max(mixture.again / tokens - bytes.all, result);
  const double operands = (mixture.keeps_dy ? 3 : 2) * bytes.all + mixture.for_weights / tokens;
  return {
      .kept = kept_here + mixture.kept / tokens,
      .checkpoint = checkpoint(bytes, division.recomputation) + mixture.checkpoint / tokens,
      .for_weights = bytes.all + operands + 2 * bytes.heads + 2 * bytes.kv_heads,
      .forward = runs_again ? checkpoint(bytes, division.recomputation) + bytes.stream + block + 2 * bytes.all +
                                  (mixture.checkpoint + mixture.first_forward) / tokens
                            : forward,
      .backward = std::max({kept_here + block + mixture.backward / tokens, bytes.in_core(), runs_again ? again : 0}),
      .input_gradient = std::max({kept_here + block + mixture.input_gradient / tokens,
                                  in_attention(bytes, division, operands), runs_again ? again : 0})};
}

// The final norm's input and output, the head, and the loss: what is kept of them, and the moments.
struct End {
  End(const PerToken& bytes, const LlamaDivision& division, int64_t n, int64_t e)
      : losses(4),
        kept_for_weights(bytes.all + bytes.columns + losses),
        whole_logits(division.loss_parallel ? 0 : static_cast<double>(e * division.config.vocab)) {
    const double ends = 2 * bytes.stream + bytes.deviation;
    const double statistics = division.loss_parallel ? 6 * 4 : 0;
    const double gathering =
        division.loss_parallel ? 0 : bytes.columns + static_cast<double>(n) * bytes.columns + whole_logits;
    // All scores, gathered to be counted or for the loss, when nothing is kept.
    const double all_scores = static_cast<double>(n) * bytes.columns + static_cast<double>(e * division.config.vocab);
    evaluation = bytes.columns + all_scores + (division.loss_parallel ? 0 : bytes.stream);
    kept = ends + (division.loss_parallel ? bytes.columns : whole_logits) + 4 + losses;
    forward = ends + std::max({bytes.columns + bytes.gathered, bytes.columns + statistics, gathering});
    const double dx = division.async ? bytes.gathered + 3 * bytes.stream : bytes.gathered > 0 ? bytes.all : 0;
    const double norm = bytes.stream - bytes.columns + losses;  // its dx, when the logits are gone
    backward = ends + bytes.columns + whole_logits + std::max(dx + losses, norm);
    input_gradient = ends + bytes.columns + whole_logits + losses + bytes.gathered + bytes.all + bytes.stream;
  }
  double losses, kept_for_weights, whole_logits;
  double kept = 0, forward = 0, backward = 0, input_gradient = 0, evaluation = 0;
};

}  // namespace

StageActivations stage_activations(const LlamaDivision& division, const LlamaPart& part, int ranks, int64_t tokens,
                                   const Precision& precision) {
  const int64_t e = size_of(precision.compute);
  const auto count = static_cast<double>(tokens);
  const PerToken of_all(division, ranks, e);
  const End end(of_all, division, ranks, e);
  const double losses = part.has_head ? end.losses : 0;
  std::vector<LayerMoments> layers;
  double behind = part.has_head ? end.kept_for_weights : 0;
  for (int64_t layer = part.first_layer; layer < part.first_layer + part.layers; ++layer) {
    const LayerBytes bytes(of_all, F8Operands(division.f8_linears, layer), e, size_of(Dtype::f32) / count);
    const bool again = division.recomputation.applies_to(layer);
    if (division.config.moe.experts == 0) {
      layers.push_back(dense_layer(bytes, division, again));
    } else {
      const auto mixture =
          mixture_activations(division.config, layer, tokens, precision, division.recomputation, division.sharing);
      layers.push_back(mixture_layer(bytes, mixture, count, division, again));
    }
    behind += layers.back().for_weights;
  }
  const double for_weights = behind + (part.has_embedding ? of_all.all : 0);
  double held = 0, forward = 0, backward = 0, input_gradient = 0;
  for (int64_t i = 0; i < part.layers; ++i) {
    const LayerMoments& layer = layers[static_cast<size_t>(i)];
    behind -= layer.for_weights;
    forward = std::max(forward, held + layer.forward);
    backward = std::max(backward, held + layer.backward + losses);
    input_gradient = std::max(input_gradient, held + layer.input_gradient + behind);
    held += division.recomputation.applies_to(part.first_layer + i) ? layer.checkpoint : layer.kept;
  }
  if (part.has_head) {
    forward = std::max(forward, held + end.forward);
    backward = std::max(backward, held + end.backward);
    input_gradient = std::max(input_gradient, held + end.input_gradient);
    held += end.kept;
  }
  const auto all = [&](double per_token) { return std::llround(per_token * count); };
  return {.kept = all(held),
          .kept_for_weights = all(for_weights),
          .forward = all(std::max(forward, held + (part.has_head ? 0 : of_all.stream))),
          .backward = all(std::max(backward, held)),
          .input_gradient = all(std::max(input_gradient, held)),
          .evaluation = part.has_head ? all(end.evaluation) : 0};
}

}  // namespace ninefold
