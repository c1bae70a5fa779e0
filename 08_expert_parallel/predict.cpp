#include "08_expert_parallel/predict.h"

#include <algorithm>
#include <numeric>

namespace ninefold {

void predict_traffic(TrafficLedger& ledger, const ExpertParallel& parallel, const LlamaConfig& config,
                     const Recomputation& recomputation, Dtype compute) {
  const Group& group = parallel.group();
  const bool exchanges = group.size() > 1, sums = parallel.tensor() && parallel.tensor()->size() > 1;
  const Volume counts = group.all_gather_volume(group.size() * config.moe.experts, Dtype::i32);
  for (const auto& [id, micro_batch] : parallel.counted()) {
    for (const auto& [layer, rows_of_layer] : micro_batch) {
      const auto& [sent, received] = rows_of_layer;
      const int64_t forwards = recomputation.applies_to(layer) ? 2 : 1;
      if (sums) {
        const Group& tensor = *parallel.tensor();
        const int64_t rows = std::accumulate(received.begin(), received.end(), int64_t{0});
        ledger.predict(tensor.name(), Operation::all_reduce, forwards + 1,
                       tensor.all_reduce_volume(rows * config.dim, compute));
      }
      if (!exchanges) continue;
      const Volume dispatch = group.all_to_all_volume(received, sent, config.dim, compute);
      const Volume combine = group.all_to_all_volume(sent, received, config.dim, compute);
      ledger.predict(group.name(), Operation::all_gather, forwards, counts);
      ledger.predict(group.name(), Operation::all_to_all, forwards + 1, dispatch);
      ledger.predict(group.name(), Operation::all_to_all, forwards + 1, combine);
    }
  }
}

namespace {

// Bytes of the activations of one block.
struct Block {
  int64_t kept = 0, checkpoint = 0;
  int64_t backward = 0, combine = 0, combine_again = 0;  // on top of what is kept
  int64_t in_core = 0;                                   // in all, in the backward of attention's core
};

int64_t sum_of(const std::vector<int64_t>& rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

// What attention's core takes beside the plain one.
void add_core(Block& block, const LlamaConfig& config, const CoreActivations& core, int64_t tokens, int64_t e) {
  if (core.is_plain()) return;
  const int64_t dim = config.dim, kv = config.kv_dim();
  if (core.exchanges_heads) block.kept += tokens * e * dim;
  block.in_core = tokens * (e * (8 * dim + 4 * kv) + 4 * (config.heads + 2));
  if (core.sums_parts) block.in_core += tokens * (4 * dim + 8 * kv);
}

Block block_bytes(const MixtureDivision& division, int64_t tokens, int64_t e, const ExchangedRows& exchanged) {
  const LlamaConfig& config = division.config;
  const Recomputation& recomputation = division.recomputation;
  const int64_t own = sum_of(exchanged.sent), arrived = sum_of(exchanged.received);
  const int64_t dim = config.dim, kv = config.kv_dim(), ffn = config.ffn / division.parts;
  const int64_t experts = config.moe.experts, top_k = config.moe.top_k, shared = config.moe.shared_experts * config.ffn;
  const int64_t shared_bytes = tokens * e * 3 * shared, stream = tokens * e * dim;
  const int64_t order = division.exchanges ? 2 * arrived : 0;  // of rows, as indices
  Block bytes;
  bytes.kept = tokens * (e * (6 * dim + 2 * kv) + 4 * (config.heads + 2) + 4 * (experts + 2 * top_k)) + shared_bytes +
               e * (arrived * (dim + 3 * ffn) + own * dim) + 4 * (own + order);
  bytes.checkpoint = stream;
  if (recomputation.saves(SavedOperation::matmul)) {
    bytes.checkpoint += tokens * (e * (2 * dim + 2 * kv + 2 * shared) + 4 * experts) + arrived * e * (2 * ffn + dim);
  }
  if (recomputation.saves(SavedOperation::attention)) bytes.checkpoint += tokens * (e * dim + 4 * config.heads);
  add_core(bytes, config, division.core, tokens, e);
  const int64_t shared_done = shared > 0 ? stream - shared_bytes : 0;
  const int64_t in_experts = division.exchanges ? arrived * (dim + std::max(dim, 2 * ffn)) : arrived * 2 * ffn;
  bytes.backward = stream + e * in_experts + tokens * 4 * (top_k + 1) + shared_done;
  bytes.backward = std::max(bytes.backward, stream + tokens * (e * 2 * shared + 4));
  if (!division.exchanges) return bytes;
  // The shared experts compute after the others.
  bytes.combine = stream + e * dim * std::max(2 * arrived, own + arrived) - shared_bytes;
  const bool keeps_products = recomputation.saves(SavedOperation::matmul);
  bytes.combine_again = bytes.combine + stream + tokens * 4 + (keeps_products ? shared_bytes * 2 / 3 : 0);
  return bytes;
}

}  // namespace

StageActivations stage_activations(const MixtureDivision& division, const LlamaPart& part, int64_t tokens,
                                   const Precision& precision, const RowsOfLayers& rows) {
  const LlamaConfig& config = division.config;
  const int64_t e = size_of(precision.compute);
  const int64_t cast_scores = precision.output == precision.compute ? 0 : size_of(precision.output) * config.vocab;
  StageActivations bytes;
  for (int64_t layer = part.first_layer; layer < part.first_layer + part.layers; ++layer) {
    const bool runs_again = division.recomputation.applies_to(layer);
    const Block block = block_bytes(division, tokens, e, rows.at(layer));
    if (!runs_again) bytes.forward = std::max(bytes.forward, bytes.kept + block.kept + block.combine);
    const int64_t combine = runs_again ? block.combine_again : 0;
    bytes.backward = std::max(
        {bytes.backward, bytes.kept + block.kept + std::max(block.backward, combine), bytes.kept + block.in_core});
    bytes.kept += runs_again ? block.checkpoint : block.kept;
  }
  const int64_t head = e * (2 * config.dim + (cast_scores > 0 ? 0 : config.vocab)) + cast_scores + 4 * 3;
  if (part.has_head) bytes.kept += tokens * head;
  const int64_t cast = part.has_head && cast_scores > 0 ? tokens * e * config.vocab : 0;
  bytes.forward = std::max(bytes.forward, bytes.kept + (part.has_head ? cast : tokens * e * config.dim));
  bytes.backward = std::max(bytes.backward, bytes.kept + cast);
  return bytes;
}

int64_t activation_bytes(const MixtureDivision& division, int64_t tokens, const Precision& precision,
                         const RowsOfLayers& rows) {
  const StageActivations all = stage_activations(division, {.layers = division.config.layers}, tokens, precision, rows);
  return std::max(all.forward, all.backward);
}

std::map<int64_t, RowsOfLayers> rows_of_micro_batches(const ExpertParallel& parallel, const RoutingRecord& routing) {
  if (parallel.divides()) return parallel.counted_in_last_step();
  std::map<int64_t, RowsOfLayers> micro_batches;
  for (const auto& [first_sample, rows] : routing.rows) {
    for (size_t layer = 0; layer < rows.size(); ++layer) {
      micro_batches[first_sample][static_cast<int64_t>(layer)] = {{rows[layer]}, {rows[layer]}};
    }
  }
  return micro_batches;
}

Parallelism beside(Parallelism data, std::shared_ptr<const ExpertParallel> parallel, const TrainOptions& options,
                   const CoreActivations& core) {
  if (!parallel->divides()) return data;
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.technique = std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const ExpertParallel>>>(
      data.technique, parallel);
  const MixtureDivision division{.config = options.llama,
                                 .recomputation = options.recomputation,
                                 .parts = parallel->tensor() ? parallel->tensor()->size() : 1,
                                 .core = core};
  const int64_t tokens = options.micro_batch * data.rows_of(options.length);
  both.predict_activations = [parallel, division, tokens, &options](const RoutingRecord&) {
    int64_t most = 0;
    for (const auto& [first_sample, rows] : parallel->counted_in_last_step()) {
      most = std::max(most, activation_bytes(division, tokens, options.precision(), rows));
    }
    return most;
  };
  both.predict_traffic = [data, parallel, &options](TrafficLedger& ledger, int64_t steps) {
    data.predict_traffic(ledger, steps);
    predict_traffic(ledger, *parallel, options.llama, options.recomputation, options.precision().compute);
  };
  return both;
}

}  // namespace ninefold
