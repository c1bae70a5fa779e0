#include "07_context_parallel/predict.h"

#include <algorithm>

namespace ninefold {
namespace {

void predict_ring(TrafficLedger& ledger, const Group& ring, int64_t keys, Dtype compute, Pass pass, int64_t times) {
  const int64_t sends = times * 2 * (ring.size() - 1);
  ledger.predict(ring.name(), Operation::send, sends, {1, keys * size_of(compute)});
  if (pass == Pass::backward) ledger.predict(ring.name(), Operation::send, sends, {1, keys * size_of(Dtype::f32)});
}

void predict_gathers(TrafficLedger& ledger, const Group& all, int64_t keys, Dtype compute, Pass pass, int64_t times) {
  const int64_t whole = keys * all.size();
  ledger.predict(all.name(), Operation::all_gather, 2 * times, all.all_gather_volume(whole, compute));
  if (pass == Pass::forward) return;
  ledger.predict(all.name(), Operation::reduce_scatter, 2 * times, all.reduce_scatter_volume(whole, Dtype::f32));
}

void predict_exchanges(TrafficLedger& ledger, const Group& neighbours, const AttentionWidths& widths, int64_t tokens,
                       Dtype compute, int64_t times) {
  for (const int64_t width : {widths.q, widths.kv}) {
    ledger.predict(neighbours.name(), Operation::all_to_all, 2 * times,
                   neighbours.all_to_all_volume(tokens * width, compute));
  }
}

// Bytes of a token, and of the layers that keep what their backward needs.
struct PerToken {
  int64_t kept, checkpoint, at_the_end, in_feed_forward, in_attention;
};

PerToken bytes_of(const LlamaContext& context, const Precision& precision) {
  const LlamaConfig& config = context.config;
  const Recomputation& again = context.recomputation;
  const int64_t e = size_of(precision.compute), dim = config.dim, kv = config.kv_dim(), ffn = config.ffn;
  const bool has_heads = context.layout.ulysses > 1, has_ring = context.layout.blocks() > 1;
  PerToken bytes{};
  bytes.kept = e * ((has_heads ? 7 : 6) * dim + 2 * kv + 3 * ffn) + 4 * (config.heads + 2);
  bytes.checkpoint = e * dim;
  if (again.saves(SavedOperation::matmul)) bytes.checkpoint += e * (2 * dim + 2 * kv + 2 * ffn);
  if (again.saves(SavedOperation::attention)) bytes.checkpoint += e * dim + 4 * config.heads;
  bytes.at_the_end = e * (2 * dim + config.vocab) + 4 * 3;
  if (precision.output != precision.compute) bytes.at_the_end += size_of(precision.output) * config.vocab;
  bytes.in_feed_forward = bytes.kept + e * (dim + 2 * ffn) + 4;
  bytes.in_attention = e * (7 * dim + 2 * kv) + 4 * (config.heads + 2) + e * (dim + 2 * kv);
  if (has_ring && context.layout.layout != Layout::gathered) bytes.in_attention += 4 * dim + 8 * kv;
  return bytes;
}

int64_t layers_that_run_again(const LlamaContext& context) {
  int64_t again = 0;
  for (int64_t layer = 0; layer < context.config.layers; ++layer) again += context.recomputation.applies_to(layer);
  return again;
}

}  // namespace

void predict_traffic(TrafficLedger& ledger, const ContextGroups& groups, const SequenceLayout& layout,
                     const AttentionWidths& widths, int64_t tokens, Dtype compute, Pass pass, int64_t times) {
  if (groups.ring.size() > 1) {
    const auto predict = layout.layout == Layout::gathered ? predict_gathers : predict_ring;
    predict(ledger, groups.ring, tokens * widths.kv, compute, pass, times);
  }
  if (groups.neighbours.size() > 1) predict_exchanges(ledger, groups.neighbours, widths, tokens, compute, times);
}

int64_t activation_bytes(const LlamaContext& context, int64_t tokens, const Precision& precision) {
  const PerToken bytes = bytes_of(context, precision);
  int64_t held = 0, peak = 0;
  for (int64_t layer = 0; layer < context.config.layers; ++layer) {
    peak = std::max({peak, held + bytes.in_feed_forward, held + bytes.in_attention});
    held += context.recomputation.applies_to(layer) ? bytes.checkpoint : bytes.kept;
  }
  return tokens * std::max(peak, held + bytes.at_the_end);
}

Parallelism beside(Parallelism data, const ContextGroups& groups, const LlamaContext& context,
                   const TrainOptions& options) {
  if (groups.all.size() == 1) return data;
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.grouping.inner_ranks = 0;  // a data rank's gradient is itself a sum over the ranks that share its sequences
  both.sample_part = {context.layout.positions(groups.all.rank(), options.length), groups.all};
  const int64_t tokens = options.micro_batch * options.length / groups.all.size();
  both.predict_memory = [=](MemoryByKind& bytes) {
    data.predict_memory(bytes);
    bytes[static_cast<size_t>(MemoryKind::activations)] =
        options.steps == 0 ? 0 : activation_bytes(context, tokens, options.precision());
  };
  both.predict_traffic = [=](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    const AttentionWidths widths{context.config.dim, context.config.kv_dim()};
    const Dtype compute = options.precision().compute;
    const int64_t micro_batches = steps * options.micro_batches, passes = micro_batches * context.config.layers;
    const auto predict = [&](Pass pass, int64_t times) {
      predict_traffic(ledger, groups, context.layout, widths, tokens, compute, pass, times);
    };
    predict(Pass::forward, passes);
    predict(Pass::backward, passes);
    const int64_t again = micro_batches * layers_that_run_again(context);
    if (!context.recomputation.saves(SavedOperation::attention)) {
      predict(Pass::forward, again);
    } else if (groups.neighbours.size() > 1) {  // heads are exchanged again for what is kept of them
      predict_exchanges(ledger, groups.neighbours, widths, tokens, compute, again);
    }
  };
  return both;
}

}  // namespace ninefold
