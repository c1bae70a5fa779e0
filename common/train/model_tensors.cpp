#include "common/train/model_tensors.h"

#include "common/nn/replace.h"

namespace ninefold {
namespace {

void add_tensors(std::vector<CarriedTensor>& tensors, const std::string& prefix, const Parameter& parameter,
                 const Tensor& tensor, const ModelFormat& format) {
  for (const StoredPart& part : format.stored_parts(parameter)) {
    tensors.push_back({prefix + part.name, tensor, parameter.placement, parameter.shape, part.shape, part.first});
  }
}

}  // namespace

std::vector<CarriedTensor> tensors_of_model(Model& model, const ModelFormat& format) {
  std::vector<CarriedTensor> tensors;
  for (const Parameter* parameter : parameters_of(model)) {
    add_tensors(tensors, "", *parameter, parameter->owned.value, format);
  }
  for_each_buffer(model, [&](const std::string&, const Buffer& buffer) {
    tensors.push_back({format.stored_name(buffer.name), buffer.value, {}, buffer.shape, buffer.shape});
  });
  return tensors;
}

std::vector<CarriedTensor> tensors_of_optimizer(const Optimizer& optimizer, const ModelFormat& format) {
  std::vector<CarriedTensor> tensors;
  optimizer.visit([&](const std::string& state, const Parameter& parameter, const Tensor& tensor) {
    add_tensors(tensors, state + ".", parameter, tensor, format);
  });
  return tensors;
}

std::vector<CarriedTensor> master_values(const Optimizer& optimizer, const ModelFormat& format) {
  std::vector<CarriedTensor> tensors;
  optimizer.visit([&](const std::string& state, const Parameter& parameter, const Tensor& tensor) {
    if (state == "master") add_tensors(tensors, "", parameter, tensor, format);
  });
  return tensors;
}

}  // namespace ninefold
