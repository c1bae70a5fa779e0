// Products in 8 bits over several ranks: what must be the same everywhere is each tensor's scale, so the ranks that
// hold parts of it share the largest magnitude of them all, in one all_reduce of a number. Then every rank rounds as
// one rank would that had all of it.
#pragma once

#include <memory>
#include <string>

#include "05_tensor_parallel/conjugates.h"
#include "common/comm/mesh.h"
#include "common/nn/operand.h"
#include "common/train/trainer.h"

namespace ninefold {

// forward, backward: all_reduce of one number, the largest magnitude of a tensor whose parts the ranks of `group` hold.
ShareLargest largest_over(const Group& group);

// How a layer's end rounds what it moves: over the ranks that hold the rows, or, where all have all of them, as it is.
ShareLargest largest_of_rows(const LayerEnd& end);

// `inner`, which also gives the weights of these layers of `model` a scale each, over all ranks of the mesh that hold
// parts of them: before the first step and after every update, one all_reduce of as many numbers as there are weights
// for each mesh dimension. To be called when the model is parallelised; it outlives the result.
Parallelism with_weight_scales(Parallelism inner, Model& model, const std::string& f8_linears, const Mesh& mesh);

}  // namespace ninefold
