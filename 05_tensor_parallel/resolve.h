// From the patterns of a plan to the layers of a model, with everything checked that can be checked without running it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "05_tensor_parallel/conjugates.h"
#include "05_tensor_parallel/plans.h"
#include "common/nn/model.h"

namespace ninefold {

// How a weight is cut: into `count` equal parts along `dim`, the last ones padded, each held by `copies` ranks.
struct Cut {
  int dim;
  int64_t count, copies;
};

// A layer of the model and what the plan does to it.
struct PlannedLayer {
  enum class Type { linear, embedding, norm, other };
  std::string path;
  Type type;
  Shape weight;                // global: [out, in] of a linear layer, [vocabulary, features] of an embedding
  std::optional<Style> style;  // absent: the layer stays whole on every rank
  // What follows from the style, on more ranks than one.
  std::string prepared_by{};  // the layer that brings this one its input, the same as others get; empty: none does
  bool in_f8 = false;         // multiplies in 8 bits; of one that prepares an input: those that share it do
  std::optional<Cut> cut{};
  Conjugate input = Conjugate::none, output = Conjugate::none;
};

struct ResolvedPlan {
  std::vector<PlannedLayer> layers;   // all of the model, in forward order
  std::vector<std::string> warnings;  // a sentence for each pattern that matches nothing, with the children there are
};

// The layers of `model` with the styles of `plan`, for a group of `ranks` called `group`. Throws UserError where a
// layer has two styles, cannot take the style or the layouts it has, does not divide by the ranks, or gives its
// neighbour another layout than that takes, and where of layers that share an input only some multiply in 8 bits; in a
// strict plan also for a pattern that matches nothing.
ResolvedPlan resolve(Model& model, const Plan& plan, int ranks, const std::string& group);

}  // namespace ninefold
