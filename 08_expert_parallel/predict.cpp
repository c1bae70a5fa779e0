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

LayerSharing sharing_of(const RowsOfLayers& rows, int64_t layers, const ExpertParallel& parallel,
                        const CoreActivations& core) {
  const auto sum_of = [](const std::vector<int64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  };
  LayerSharing sharing{.core = core,
                       .exchanges_rows = parallel.divides(),
                       .expert_parts = parallel.tensor() ? parallel.tensor()->size() : 1};
  sharing.rows.resize(static_cast<size_t>(layers));
  for (const auto& [layer, of_layer] : rows) {
    sharing.rows.at(static_cast<size_t>(layer)) = {sum_of(of_layer.sent), sum_of(of_layer.received)};
  }
  return sharing;
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
  const int64_t tokens = options.micro_batch * data.rows_of(options.length);
  both.predict_activations = [parallel, core, tokens, &options](const RoutingRecord&) {
    int64_t most = 0;
    for (const auto& [first_sample, rows] : parallel->counted_in_last_step()) {
      most = std::max(most, llama_activation_bytes(options.llama, tokens, options.precision(), options.recomputation,
                                                   sharing_of(rows, options.llama.layers, *parallel, core)));
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
