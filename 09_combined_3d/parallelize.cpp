#include "09_combined_3d/parallelize.h"

#include <algorithm>

#include "03_zero_fsdp/divide.h"
#include "05_tensor_parallel/f8.h"
#include "05_tensor_parallel/predict.h"
#include "06_pipeline/runner/pipeline.h"
#include "06_pipeline/runner/predict.h"
#include "07_context_parallel/predict.h"
#include "08_expert_parallel/predict.h"
#include "common/nn/f8_linears.h"

namespace ninefold {
namespace {

using pipeline::ActivationsOf;
using pipeline::Pipeline;

// What stays alive while the model is trained.
struct Combined {
  std::unique_ptr<Pipeline> pipeline;
  std::unique_ptr<TensorParallel> tensor;
  std::shared_ptr<const ExpertParallel> experts;
  std::shared_ptr<const void> data;
};

std::unique_ptr<Pipeline> pipeline_stages(Model& model, const Task& task, const Mesh& mesh,
                                          const Techniques& techniques, const LlamaDivision& division,
                                          const TrainOptions& train) {
  const Group& group = mesh["pp"];
  auto schedule =
      techniques.pipeline.schedule(group.size(), static_cast<int>(train.micro_batches), techniques.sharding);
  auto children = on_paper(task, train.micro_batch, train.precision());
  children = in_parts_of_samples(std::move(children), mesh.size("cp"));
  if (division.sequence_parallel) children = in_row_blocks(std::move(children), mesh.size("tp"));
  const auto stages = cut(layers_of(children), schedule.stages(), techniques.pipeline.layers_per_stage);
  const auto ranks = pipeline::ranks_of_stages(schedule);
  if (on_first_rank()) {
    fmt::print("{}\n{}", title_of(schedule, techniques.pipeline.choice.name()), description(stages, children, ranks));
  }
  return std::make_unique<Pipeline>(model, std::move(schedule), stages, children, group, task);
}

// The parts of the model that this rank takes micro-batches through.
std::vector<PartOfStep> parts_of_step(const Pipeline* stages, const TrainOptions& train) {
  if (!stages) return {{.part = {.layers = train.llama.layers}, .micro_batches = train.micro_batches}};
  std::vector<PartOfStep> parts;
  for (const auto& [stage, micro_batches] : stages->work()) {
    parts.push_back({llama_part(train.llama, stages->children_of(stage)), micro_batches});
  }
  return parts;
}

ActivationsOf activations_of(int ranks, const LlamaDivision& division, int64_t tokens, const TrainOptions& train) {
  return [&train, division, ranks, tokens](const Children& children) {
    const LlamaPart part = llama_part(train.llama, children);
    return ranks > 1 ? stage_activations(division, part, ranks, tokens, train.precision())
                     : llama_stage_activations(train.llama, part, tokens, train.precision(), train.recomputation,
                                               division.sharing);
  };
}

// The same of what routers have sent to experts.
pipeline::RoutedActivations routed_activations(std::shared_ptr<const ExpertParallel> experts, int ranks,
                                               const LlamaDivision& division, int64_t tokens,
                                               const TrainOptions& train) {
  if (train.llama.moe.experts == 0) return {};
  return [=, &train](const Children& children, int64_t first_sample, const RoutingRecord& routing) {
    const RowsOfLayers rows = rows_of_micro_batches(*experts, routing).at(first_sample);
    LlamaDivision routed = division;
    routed.sharing = sharing_of(rows, train.llama.layers, *experts, division.sharing.core);
    return activations_of(ranks, routed, tokens, train)(children);
  };
}

// Of a rank that has all layers.
std::function<int64_t(const RoutingRecord&)> most_of_micro_batches(const pipeline::RoutedActivations& routed,
                                                                   const TrainOptions& train) {
  return [routed, &train](const RoutingRecord& routing) {
    const Children all = {0, static_cast<size_t>(train.llama.layers) + 3};
    int64_t most = 0;
    for (const auto& [first_sample, rows] : routing.rows) {
      const StageActivations bytes = routed(all, first_sample, routing);
      most = std::max({most, bytes.forward, bytes.backward, train.evaluates() ? bytes.evaluation : 0});
    }
    return most;
  };
}

}  // namespace

// The order is fixed, because each technique relies on what those before it have done:
//
//   1  pipeline stages          say which layers a rank holds at all: all that follows happens within a stage
//   2  tensor parallelism       replaces single layers by name, while they are still the model's own
//   3  context parallelism      swaps attention's core, which has the heads that 2 has left here
//   4  expert parallelism       puts the experts behind an exchange of rows, and leaves some of them here; the ranks of
//                               2, which have the same rows, divide each
//   5  activation checkpoints   around whole blocks, so that what is run again includes the messages of 2, 3 and 4;
//                               inside the units of 6, or every unit would be gathered once more for it
//   6  sharding or replicas     last: flat buffers of the pieces of parameters that 1, 2 and 4 have left here; what
//                               alone sums gradients over the ranks of the data, and those that share its sequences
Parallelism parallelize(Model& model, const Task& task, const Mesh& mesh, const Techniques& techniques,
                        const TrainOptions& train) {
  const Group& tp = mesh["tp"];
  const SequenceLayout layout = techniques.context.sequence_layout(mesh.size("cp"));
  LlamaDivision division = techniques.tensor.division(train);
  division.sharing.core = core_of(layout, mesh["cp"].rank(), train.length, train.precision().compute);
  const auto combined = std::make_shared<Combined>();

  if (mesh.size("pp") > 1) combined->pipeline = pipeline_stages(model, task, mesh, techniques, division, train);
  Pipeline* const stages = combined->pipeline.get();
  if (tp.size() > 1) {
    combined->tensor = parallelize(model, tp, division.plan());
  } else {
    multiply_in_f8(model, train.f8_linears);
  }
  const ContextGroups context = context_parallel(model, mesh["cp"], layout, techniques.context.ring);
  const std::shared_ptr<const ExpertParallel> experts =
      expert_parallel(model, mesh.has("ep") ? mesh["ep"] : mesh.flatten({"ep"}), tp);
  checkpoint_activations(model, "layers.*", train.recomputation);
  const Parallelism data = stages ? divide(*stages, model, mesh, techniques.sharding, train)
                                  : divide(model, mesh, techniques.sharding, train);
  combined->experts = experts;
  combined->data = data.technique;

  const std::vector<PartOfStep> parts = parts_of_step(stages, train);
  Parallelism all = beside(data, context, {train.llama, layout, train.recomputation, tp.size()}, train, parts);
  all = beside(all, experts, train, division.sharing.core);
  if (combined->tensor) all = beside(all, *combined->tensor, tp, division, parts, train);
  const int64_t tokens = train.micro_batch * all.rows_of(train.length);
  const auto routed = routed_activations(experts, tp.size(), division, tokens, train);
  if (tp.size() > 1 && routed) all.predict_activations = most_of_micro_batches(routed, train);
  // Weights that are gathered in f8 have their scales from there.
  const bool need_scales = !train.f8_linears.empty() && !techniques.sharding.types.quantizes();
  if (need_scales) all = with_weight_scales(all, model, train.f8_linears, mesh);
  if (stages) {
    all = stages->parallelism(std::move(all), activations_of(tp.size(), division, tokens, train), train, routed);
  }
  all.technique = combined;
  return all;
}

}  // namespace ninefold
