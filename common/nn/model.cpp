#include "common/nn/model.h"

#include "common/base/trace.h"
#include "common/nn/replace.h"

namespace ninefold {

Tensor Model::forward(const Tensor& x, Saved& saved) {
  Tensor activation = x;
  for (const Child& child : children_) {
    const Span span(x.device()->trace, "compute", "{} forward", child.name);
    activation = child.layer->forward(activation, saved);
  }
  return activation;
}

Tensor Model::backward(const Tensor& dscores, Saved& saved) { return backward_children(dscores, saved); }

Tensor Model::backward_from_loss(Saved& saved) { return backward_children(loss_->backward(saved), saved); }

// By value: the gradient of a child's output must not outlive that child's backward.
Tensor Model::backward_children(Tensor gradient, Saved& saved) {
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    const Span span(gradient.device()->trace, "compute", "{} backward", child->name);
    gradient = child->layer->backward(gradient, saved);
  }
  return gradient;
}

void Model::visit(Visitor& visitor) {
  for (Child& child : children_) visitor.slot(child.name, child.layer);
}

void Model::name_parameters() {
  for_each_parameter(*this, [](const std::string& path, Parameter& parameter) { parameter.name = path; });
}

std::vector<Parameter*> parameters_of(Layer& layer) {
  std::vector<Parameter*> found;
  for_each_parameter(layer, [&](const std::string&, Parameter& parameter) { found.push_back(&parameter); });
  return found;
}

int64_t parameter_count(Layer& layer) {
  int64_t count = 0;
  for (const Parameter* parameter : parameters_of(layer)) count += parameter->size();
  return count;
}

void materialize(Layer& layer, const DeviceHandle& device, const Precision& precision, uint64_t seed) {
  for (Parameter* parameter : parameters_of(layer)) {
    Parameter::Owned& owned = parameter->owned;
    if (!owned.value.defined()) {
      const MemoryScope scope(*device, MemoryKind::parameters);
      parameter->value = owned.value = Tensor::empty(device, parameter->local_shape(), precision.compute);
    }
    if (!owned.gradient.defined()) {
      const MemoryScope scope(*device, MemoryKind::gradients);
      parameter->gradient = owned.gradient = Tensor::empty(device, parameter->local_shape(), precision.gradient);
    }
    // What layers use holds what is owned, if it is there.
    parameter->initialise(parameter->value.defined() ? parameter->value : owned.value, seed);
  }
}

double forward_backward(Model& model, const Tensor& x, Step step) {
  Saved saved(std::move(step));
  {
    const Tensor scores = model.forward(x, saved);
    model.loss().forward(scores, saved);
  }
  const double loss_sum = ops::sum(saved.step().losses);
  model.backward_from_loss(saved);
  expect(saved.empty(), "backward left tensors that forward kept");
  return loss_sum;
}

Evaluation evaluate(Model& model, const Tensor& x, Step step) {
  step.training = false;
  Saved saved(std::move(step));
  const Tensor scores = model.forward(x, saved);
  model.loss().forward(scores, saved);
  return {scores, ops::sum(saved.step().losses)};
}

}  // namespace ninefold
