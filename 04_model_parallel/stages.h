// Cutting a model into stages: consecutive children each, so that only one tensor goes from a stage to the next. The
// embedding stays with the first layer, the last norm, the head and the loss with the last one.
//
//   tok_embeddings  layers.0  layers.1 | layers.2  layers.3 | layers.4  layers.5  norm  output
//   stage 0                            | stage 1            | stage 2
#pragma once

#include <string>
#include <vector>

#include "04_model_parallel/on_paper.h"

namespace ninefold {

struct Stage {
  Children children;
  int64_t layers = 0;
  double flops = 0;  // of a micro-batch's forward and backward
};

// The layers between which a model may be cut, as stages of one layer. They are the children called "layers.N" or,
// where there are none, those that have parameters; any other child stays with the layer before it, or with the first.
std::vector<Stage> layers_of(const std::vector<ChildOnPaper>& model);

// The cut into so many stages whose largest has the fewest FLOPs. Throws UserError where there are fewer layers.
std::vector<Stage> cut_evenly(const std::vector<Stage>& layers, int stages);

// The cut with as many layers in each stage as the list says, "2,3,3". Throws UserError unless it has a number for
// every stage, each at least 1, and their sum is that of the layers.
std::vector<Stage> cut_as(const std::vector<Stage>& layers, int stages, const std::string& layers_per_stage);

// cut_as, or cut_evenly where the list is empty.
std::vector<Stage> cut(const std::vector<Stage>& layers, int stages, const std::string& layers_per_stage);

// FLOPs of the largest stage, divided by the mean.
double imbalance(const std::vector<Stage>& stages);

// A table of the stages and the ranks that hold them, and a line about their balance.
std::string description(const std::vector<Stage>& stages, const std::vector<ChildOnPaper>& model,
                        const std::vector<std::vector<int>>& ranks_of);

}  // namespace ninefold
