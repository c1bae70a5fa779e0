// What a model and its optimizer carry from step to step, as files hold it.
#pragma once

#include <vector>

#include "common/nn/model.h"
#include "common/optim/optimizer.h"
#include "common/train/tensor_files.h"
#include "common/train/transformers.h"

namespace ninefold {

// What this rank owns of the parameters, and the buffers, which every rank has.
std::vector<CarriedTensor> tensors_of_model(Model& model, const ModelFormat& format);

// All states of an optimizer, master values among them, each under its own name and that of the parameter.
std::vector<CarriedTensor> tensors_of_optimizer(const Optimizer& optimizer, const ModelFormat& format);
// The master values alone, under the names of the parameters: to be read from a model's file.
std::vector<CarriedTensor> master_values(const Optimizer& optimizer, const ModelFormat& format);

}  // namespace ninefold
