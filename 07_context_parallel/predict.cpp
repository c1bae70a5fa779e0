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

// Layers of the part that run their forward again.
int64_t layers_again(const LlamaPart& part, const Recomputation& recomputation) {
  int64_t again = 0;
  for (int64_t i = 0; i < part.layers; ++i) again += recomputation.applies_to(part.first_layer + i);
  return again;
}

}  // namespace

void predict_traffic(TrafficLedger& ledger, const ContextGroups& groups, const SequenceLayout& layout,
                     const AttentionWidths& widths, int64_t tokens, Dtype compute, Pass pass, int64_t times) {
  if (groups.ring.size() > 1) {
    const auto predict = layout.layout == ContextLayout::gathered ? predict_gathers : predict_ring;
    predict(ledger, groups.ring, tokens * widths.kv, compute, pass, times);
  }
  if (groups.neighbours.size() > 1) predict_exchanges(ledger, groups.neighbours, widths, tokens, compute, times);
}

CoreActivations core_of(const SequenceLayout& layout, int rank, int64_t length, Dtype compute) {
  const auto steps = ring_plan(layout, rank / layout.ulysses, length);
  const auto parts = std::count_if(steps.begin(), steps.end(), [](const RingStep& step) { return step.pairs > 0; });
  const bool has_ring = layout.blocks() > 1 && layout.layout != ContextLayout::gathered;
  return {.exchanges_heads = layout.ulysses > 1, .sums_parts = has_ring && (parts > 1 || compute != Dtype::f32)};
}

AttentionWidths LlamaContext::widths() const {
  return {config.dim / tp, std::max<int64_t>(config.kv_heads / tp, 1) * config.head_dim()};
}

void predict_routers(TrafficLedger& ledger, const Group& all, const MoeConfig& moe, int64_t tokens, int64_t times) {
  if (moe.experts == 0 || times == 0) return;
  const bool needs_gates = moe.capacity_factor && moe.drop_policy == DropPolicy::probs;
  ledger.predict(all.name(), Operation::all_gather, times * (needs_gates ? 2 : 1),
                 all.all_gather_volume(all.size() * tokens * moe.top_k, Dtype::i32));
}

Parallelism beside(Parallelism data, const ContextGroups& groups, const LlamaContext& context,
                   const TrainOptions& options, std::vector<PartOfStep> parts) {
  if (groups.all.size() == 1) return data;
  if (parts.empty()) parts = {{{.layers = context.config.layers}, options.micro_batches}};
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.grouping.inner_ranks = 0;  // a data rank's gradient is itself a sum over the ranks that share its sequences
  both.sample_part = {context.layout.positions(groups.all.rank(), options.length), groups.all};
  const int64_t tokens = options.micro_batch * both.rows_of(options.length);
  const CoreActivations core = core_of(context.layout, groups.all.rank(), options.length, options.precision().compute);
  both.predict_memory = [=](MemoryByKind& bytes) {
    data.predict_memory(bytes);
    bytes[static_cast<size_t>(MemoryKind::activations)] =
        options.steps == 0 ? 0
                           : llama_activation_bytes(context.config, tokens, options.precision(), context.recomputation,
                                                    {.core = core});
  };
  if (context.config.moe.experts > 0) {
    both.predict_activations = [=](const RoutingRecord& routing) {
      int64_t most = 0;
      for (const auto& [first_sample, rows] : routing.rows) {
        const LayerSharing sharing{.core = core, .rows = own_expert_rows(rows)};
        most = std::max(
            most, llama_activation_bytes(context.config, tokens, options.precision(), context.recomputation, sharing));
      }
      return most;
    };
  }
  both.predict_traffic = [=](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    const Dtype compute = options.precision().compute;
    const auto predict = [&](Pass pass, int64_t times) {
      predict_traffic(ledger, groups, context.layout, context.widths(), tokens, compute, pass, times);
    };
    for (const auto& [part, micro_batches] : parts) {
      const int64_t passes = steps * micro_batches;
      predict(Pass::forward, passes * part.layers);
      predict(Pass::backward, passes * part.layers);
      const int64_t again = passes * layers_again(part, context.recomputation);
      predict_routers(ledger, groups.all, context.config.moe, tokens, passes * part.layers + again);
      if (!context.recomputation.saves(SavedOperation::attention)) {
        predict(Pass::forward, again);
      } else if (groups.neighbours.size() > 1) {  // heads are exchanged again for what is kept of them
        predict_exchanges(ledger, groups.neighbours, context.widths(), tokens, compute, again);
      }
    }
  };
  return both;
}

}  // namespace ninefold
