#include "09_combined_3d/parallelize.h"

#include <memory>

namespace ninefold {

Parallelism parallelize(Model& model, const Mesh& mesh, const TrainOptions& options) {
  const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{}, mesh.world().device(),
                                                       options.grad_dtype);
  Parallelism parallelism = replicated->parallelism();
  parallelism.technique = replicated;
  return parallelism;
}

}  // namespace ninefold
