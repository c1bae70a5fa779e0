// From the patterns of a plan to the layers of a model, with everything checked that can be checked without running it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "05_tensor_parallel/plan.h"
#include "common/nn/model.h"

namespace ninefold {

// A layer of the model and what the plan does to it.
struct PlannedLayer {
  enum class Type { linear, embedding, norm, other };
  std::string path;
  Type type;
  Shape weight;                // global: [out, in] of a linear layer, [vocabulary, features] of an embedding
  std::optional<Style> style;  // absent: the layer stays whole on every rank
};

struct ResolvedPlan {
  std::vector<PlannedLayer> layers;   // all of the model, in forward order
  std::vector<std::string> warnings;  // a sentence for each pattern that matches nothing, with the children there are
};

// The layers of `model` with the styles of `plan`, for a group of `ranks` called `group`. Throws UserError where a layer
// has two styles, cannot take the style it has, does not divide by the ranks, or gives its neighbour another layout than
// that takes; in a strict plan also for a pattern that matches nothing.
ResolvedPlan resolve(Model& model, const Plan& plan, int ranks, const std::string& group);

// Throws UserError where one layer does not fit the next. The scores of the last layer are whole, or columns under loss
// parallelism.
void check_flow(const std::vector<PlannedLayer>& layers, bool loss_parallel);

}  // namespace ninefold
