#include "05_tensor_parallel/predict.h"

#include <algorithm>

namespace ninefold {

namespace {

// What f8 changes: gathers of a byte an element, and scales that are shared.
struct F8Traffic {
  int64_t gathers = 0, scales = 0;
};

F8Traffic f8_traffic(const LlamaDivision& division, const LlamaPart& part) {
  F8Traffic traffic;
  for (int64_t layer = part.first_layer; layer < part.first_layer + part.layers; ++layer) {
    const F8Operands f8(division.f8_linears, layer);
    const int64_t inputs = f8.attention + f8.ffn, parts = f8.wo + f8.w2;
    const bool runs_again = division.recomputation.applies_to(layer);
    const int64_t forwards = runs_again ? 2 : 1;
    const bool gathers_again = runs_again && !division.recomputation.saves(SavedOperation::matmul);
    traffic.scales += parts * forwards + 3 * f8.attention + 2 * f8.ffn;
    if (!division.sequence_parallel) continue;
    traffic.scales += inputs * forwards + parts;
    traffic.gathers += inputs * (gathers_again ? 3 : 2) + parts;
  }
  return traffic;
}

}  // namespace

void predict_traffic(TrafficLedger& ledger, const Group& group, const LlamaDivision& division, const LlamaPart& part,
                     int64_t tokens, Dtype compute, int64_t times) {
  if (group.size() == 1) return;
  const LlamaConfig& config = division.config;
  const int64_t stream = tokens * config.dim, ranks = group.size();
  int64_t again = 0;  // layers that run their forward again
  for (int64_t i = 0; i < part.layers; ++i) again += division.recomputation.applies_to(part.first_layer + i);
  // Half blocks whose layers are divided. A mixture of experts gets its rows whole, and its results' gradients.
  const bool has_mixtures = config.moe.experts > 0;
  const int64_t halves = has_mixtures ? 1 : 2, whole_rows = has_mixtures ? 2 * part.layers + again : 0;
  const int64_t gathered_again = division.recomputation.saves(SavedOperation::matmul) ? 0 : halves * again;
  const int64_t summed_again = division.recomputation.saves(SavedOperation::reduce_scatter) ? 0 : again;

  const auto add = [&](Operation operation, int64_t calls, const Volume& volume) {
    if (calls > 0) ledger.predict(group.name(), operation, times * calls, volume);
  };
  const F8Traffic f8 = f8_traffic(division, part);
  add(Operation::all_reduce, f8.scales, group.all_reduce_volume(1, Dtype::i32));
  const int64_t embedding = part.has_embedding, head = part.has_head;
  const int64_t sums = 2 * halves * part.layers + embedding + head + summed_again;
  const int64_t gathers = 3 * halves * part.layers + whole_rows + embedding + 2 * head + gathered_again;
  if (!division.sequence_parallel) {
    add(Operation::all_reduce, sums, group.all_reduce_volume(stream, compute));
  } else {
    // In pieces: all but the embedding's two, and the gathers of inputs again, which overlap whole.
    const int64_t whole_gathers = division.async ? halves * part.layers + whole_rows + embedding + head : gathers;
    const int64_t whole_sums = division.async ? embedding : sums;
    const Volume piece{1, stream / ranks * size_of(compute)};
    add(Operation::reduce_scatter, whole_sums, group.reduce_scatter_volume(stream, compute));
    add(Operation::all_gather, whole_gathers - f8.gathers, group.all_gather_volume(stream, compute));
    add(Operation::all_gather, f8.gathers, group.all_gather_volume(stream, Dtype::f8_e4m3));
    add(Operation::send, (sums - whole_sums + gathers - whole_gathers) * (ranks - 1), piece);
  }
  if (!part.has_head) return;
  if (division.loss_parallel) {
    add(Operation::all_reduce, 3, group.all_reduce_volume(tokens, Dtype::f32));
  } else {
    const int64_t width = (config.vocab + ranks - 1) / ranks;
    add(Operation::all_gather, 1, group.all_gather_volume(tokens * ranks * width, compute));
  }
}

double extra_flops(const LlamaDivision& division, int ranks, int64_t tokens) {
  const LlamaConfig& config = division.config;
  const Recomputation& recomputation = division.recomputation;
  const int64_t copies = std::max<int64_t>(ranks / config.kv_heads, 1) - 1;
  const int64_t copied = 2 * copies * config.kv_dim() * config.dim, wo = config.dim * config.dim;
  const int64_t padding = ((config.vocab + ranks - 1) / ranks * ranks - config.vocab) * config.dim;
  // Of a mixture every rank computes the router and the shared experts.
  const int64_t shared = (ranks - 1) * config.dim * config.moe.shared_experts * config.ffn;
  const int64_t router = (ranks - 1) * config.dim * config.moe.experts;
  int64_t again = 0;  // in a layer that runs again
  if (!recomputation.saves(SavedOperation::matmul)) again += copied + router + 2 * shared;
  // wo is kept where its reduced result is, not with the other products.
  again += wo * (recomputation.saves(SavedOperation::matmul) - recomputation.saves(SavedOperation::reduce_scatter));
  int64_t flops = 6 * padding;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    flops += 6 * (copied + router + 3 * shared) + (recomputation.applies_to(layer) ? 2 * again : 0);
  }
  return static_cast<double>(flops * tokens);
}

Parallelism beside(Parallelism data, const TensorParallel& parallel, const Group& group, const LlamaDivision& division,
                   const std::vector<PartOfStep>& parts, const TrainOptions& options) {
  if (group.size() == 1) return data;
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.grouping.partial_ranks = group.size();
  both.reduce_gradients = [data, &parallel] {
    data.reduce_gradients();
    parallel.reduce_gradients();
  };
  const int64_t tokens = options.micro_batch * data.rows_of(options.length);
  const Dtype compute = options.precision().compute;
  both.predict_flops = [=](double flops) {
    return data.predict_flops(flops) + extra_flops(division, group.size(), options.batch * options.length);
  };
  both.predict_memory = [=, &options](MemoryByKind& bytes) {
    data.predict_memory(bytes);
    const StageActivations all =
        stage_activations(division, {.layers = division.config.layers}, group.size(), tokens, options.precision());
    bytes[static_cast<size_t>(MemoryKind::activations)] =
        options.steps == 0 ? 0 : std::max({all.forward, all.backward, options.evaluates() ? all.evaluation : 0});
  };
  both.predict_traffic = [=, &parallel](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    parallel.predict_traffic(ledger, steps);
    for (const auto& [part, micro_batches] : parts) {
      predict_traffic(ledger, group, division, part, tokens, compute, steps * micro_batches);
    }
  };
  return both;
}

}  // namespace ninefold
