#include "08_expert_parallel/predict.h"

#include <algorithm>
#include <numeric>

namespace ninefold {

void predict_traffic(TrafficLedger& ledger, const ExpertParallel& parallel, const LlamaConfig& config,
                     const Recomputation& recomputation, Dtype compute) {
  const Group& group = parallel.group();
  const bool exchanges = group.size() > 1, sums = parallel.tensor() && parallel.tensor()->size() > 1;
  const Volume counts = group.all_gather_volume(group.size() * config.moe.experts, Dtype::i32);
  for (const std::vector<ExchangedRows>& micro_batch : parallel.counted()) {
    for (size_t layer = 0; layer < micro_batch.size(); ++layer) {
      const auto& [sent, received] = micro_batch[layer];
      const int64_t forwards = recomputation.applies_to(static_cast<int64_t>(layer)) ? 2 : 1;
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
};

Block block_bytes(const LlamaConfig& config, int64_t tokens, int64_t e, const Recomputation& recomputation,
                  const ExchangedRows& exchanged, int64_t parts) {
  const int64_t own = std::accumulate(exchanged.sent.begin(), exchanged.sent.end(), int64_t{0});
  const int64_t arrived = std::accumulate(exchanged.received.begin(), exchanged.received.end(), int64_t{0});
  const int64_t dim = config.dim, kv = config.kv_dim(), ffn = config.ffn / parts, top_k = config.moe.top_k;
  const int64_t experts = config.moe.experts, shared = config.moe.shared_experts * config.ffn;
  const int64_t shared_bytes = tokens * e * 3 * shared, stream = tokens * e * dim;
  Block bytes;
  bytes.kept = tokens * (e * (6 * dim + 2 * kv) + 4 * (config.heads + 2) + 4 * (experts + 2 * top_k)) + shared_bytes +
               e * (arrived * (dim + 3 * ffn) + own * dim) + 4 * (own + 2 * arrived);
  bytes.checkpoint = stream;
  if (recomputation.saves(SavedOperation::matmul)) {
    bytes.checkpoint += tokens * (e * (2 * dim + 2 * kv + 2 * shared) + 4 * experts) + arrived * e * (2 * ffn + dim);
  }
  if (recomputation.saves(SavedOperation::attention)) bytes.checkpoint += tokens * (e * dim + 4 * config.heads);
  const int64_t shared_done = shared > 0 ? stream - shared_bytes : 0;
  bytes.backward = stream + e * arrived * (dim + std::max(dim, 2 * ffn)) + tokens * 4 * (top_k + 1) + shared_done;
  bytes.backward = std::max(bytes.backward, stream + tokens * (e * 2 * shared + 4));
  // The shared experts compute after the others.
  bytes.combine = stream + e * dim * std::max(2 * arrived, own + arrived) - shared_bytes;
  const bool keeps_products = recomputation.saves(SavedOperation::matmul);
  bytes.combine_again = bytes.combine + stream + tokens * 4 + (keeps_products ? shared_bytes * 2 / 3 : 0);
  return bytes;
}

}  // namespace

int64_t activation_bytes(const LlamaConfig& config, int64_t parts, int64_t tokens, const Precision& precision,
                         const Recomputation& recomputation, const std::vector<ExchangedRows>& exchanged) {
  const int64_t e = size_of(precision.compute);
  const int64_t cast_scores = precision.output == precision.compute ? 0 : size_of(precision.output) * config.vocab;
  const int64_t loss = tokens * (e * (2 * config.dim + config.vocab) + cast_scores + 4 * 3);
  int64_t held = 0, peak = 0;
  for (size_t layer = 0; layer < exchanged.size(); ++layer) {
    const bool runs_again = recomputation.applies_to(static_cast<int64_t>(layer));
    const Block block = block_bytes(config, tokens, e, recomputation, exchanged[layer], parts);
    const int64_t combine = runs_again ? block.combine_again : block.combine;
    peak = std::max(peak, held + block.kept + std::max(block.backward, combine));
    held += runs_again ? block.checkpoint : block.kept;
  }
  return std::max(peak, held + loss);
}

Parallelism beside(Parallelism data, std::shared_ptr<const ExpertParallel> parallel, const TrainOptions& options) {
  if (!parallel->divides()) return data;
  const int64_t parts = parallel->tensor() ? parallel->tensor()->size() : 1;
  Parallelism both = data;
  both.numerics = Numerics::bounded;
  both.technique = std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const ExpertParallel>>>(
      data.technique, parallel);
  both.predict_activations = [parallel, parts, &options](const RoutingRecord&) {
    int64_t most = 0;
    for (const std::vector<ExchangedRows>& micro_batch : parallel->counted_in_last_step()) {
      most = std::max(most, activation_bytes(options.llama, parts, options.micro_batch * options.length,
                                             options.precision(), options.recomputation, micro_batch));
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
