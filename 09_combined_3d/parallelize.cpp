#include "09_combined_3d/parallelize.h"

#include <memory>

namespace ninefold {

Parallelism parallelize(Model& model, const Mesh& mesh, const TrainOptions& options) {
  const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{}, mesh.world().device(),
                                                       options.grad_dtype);
  return {.grouping = replicated->grouping(),
          .reduce_gradients = [replicated] { replicated->reduce_gradients(); },
          .predict_traffic = [replicated](TrafficLedger& ledger,
                                          int64_t steps) { replicated->predict_traffic(ledger, steps); },
          .numerics = replicated->numerics()};
}

}  // namespace ninefold
