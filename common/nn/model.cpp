#include "common/nn/model.h"

#include "common/base/trace.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

// Transparent in names.
class CastScores : public Layer {
 public:
  CastScores(std::unique_ptr<Layer> inner, const Precision& precision)
      : inner_(std::move(inner)), precision_(precision) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    return ops::cast(inner_->forward(x, saved), precision_.output);
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    return inner_->backward(ops::cast(dy, precision_.compute), saved);
  }
  void visit(Visitor& visitor) override { visitor.member("", *inner_); }

 private:
  std::unique_ptr<Layer> inner_;
  Precision precision_;
};

struct LastChild : Visitor {
  std::unique_ptr<Layer>* layer = nullptr;
  void slot(std::string_view, std::unique_ptr<Layer>& child) override { layer = &child; }
};

}  // namespace

Tensor Model::forward(const Tensor& x, Saved& saved) { return forward(x, saved, all()); }

Tensor Model::backward(const Tensor& dscores, Saved& saved) { return backward(dscores, saved, all()); }

Tensor Model::backward_from_loss(Saved& saved) { return backward(loss_->backward(saved), saved, all()); }

Tensor Model::forward(Tensor x, Saved& saved, Children part) {
  for (size_t i = part.begin; i < part.end; ++i) {
    const Span span(x.device()->trace, "compute", "{} forward", children_[i].name);
    x = children_[i].layer->forward(x, saved);
  }
  return x;
}

// By value: the gradient of a child's output must not outlive that child's backward.
Tensor Model::backward(Tensor dy, Saved& saved, Children part) {
  for (size_t i = part.end; i-- > part.begin;) {
    const Span span(dy.device()->trace, "compute", "{} backward", children_[i].name);
    dy = children_[i].layer->backward(dy, saved);
  }
  return dy;
}

void Model::visit(Visitor& visitor) {
  for (Child& child : children_) visitor.slot(child.name, child.layer);
}

void Model::name_parameters() {
  for_each_parameter(*this, [](const std::string& path, Parameter& parameter) { parameter.name = path; });
  for_each_buffer(*this, [](const std::string& path, Buffer& buffer) { buffer.name = path; });
}

std::vector<Parameter*> parameters_of(Layer& layer) {
  std::vector<Parameter*> found;
  for_each_parameter(layer, [&](const std::string&, Parameter& parameter) { found.push_back(&parameter); });
  return found;
}

std::vector<Parameter*> parameters_used_by(Layer& layer) {
  struct Collector : Visitor {
    std::vector<Parameter*> found;
    void slot(std::string_view, std::unique_ptr<Layer>& child) override { child->visit(*this); }
    void member(std::string_view, Layer& child) override { child.visit(*this); }
    void parameter(std::string_view, Parameter& parameter) override { found.push_back(&parameter); }
    void tied(std::string_view, Parameter& parameter) override { found.push_back(&parameter); }
  } collector;
  layer.visit(collector);
  return collector.found;
}

int64_t parameter_count(Layer& layer) {
  int64_t count = 0;
  for (const Parameter* parameter : parameters_of(layer)) count += parameter->size();
  return count;
}

std::string to_string(const Precision& precision) {
  std::string text(name_of(precision.compute));
  if (precision.stored != precision.compute) text += fmt::format(" from {}", name_of(precision.stored));
  return precision.f8_linears.empty() ? text : fmt::format("{}, f8 linears in {}", text, precision.f8_linears);
}

void cast_scores(Model& model, const Precision& precision) {
  if (precision.output == precision.compute) return;
  LastChild last;
  model.visit(last);
  expect(last.layer != nullptr, "a model without layers has no scores");
  *last.layer = std::make_unique<CastScores>(std::move(*last.layer), precision);
}

void materialize(Layer& layer, const DeviceHandle& device, const Precision& precision, uint64_t seed) {
  for (Parameter* parameter : parameters_of(layer)) {
    Parameter::Owned& owned = parameter->owned;
    if (!owned.value.defined()) {
      const MemoryScope scope(*device, MemoryKind::parameters);
      owned.value = Tensor::empty(device, parameter->local_shape(), precision.stored);
      const bool is_used = precision.compute == precision.stored;
      parameter->value = is_used ? owned.value : Tensor::empty(device, parameter->local_shape(), precision.compute);
    }
    if (!owned.gradient.defined()) {
      const MemoryScope scope(*device, MemoryKind::gradients);
      parameter->gradient = owned.gradient = Tensor::empty(device, parameter->local_shape(), precision.gradient);
    }
    if (parameter->value.defined()) parameter->initialise(parameter->value, seed);
    // What layers use may hold what is owned.
    if (!owned.value.shares_storage_with(parameter->value)) parameter->initialise(owned.value, seed);
  }
  for_each_buffer(layer, [&](const std::string&, Buffer& buffer) {
    if (buffer.value.defined()) return;
    const MemoryScope scope(*device, MemoryKind::data);
    buffer.value = Tensor::zeros(device, buffer.shape, Dtype::f32);
  });
}

Tensor losses_and_gradients(Model& model, const Tensor& x, Step step) {
  Saved saved(std::move(step));
  {
    const Tensor scores = model.forward(x, saved);
    model.loss().forward(scores, saved);
  }
  model.backward_from_loss(saved);
  expect(saved.empty(), "backward left tensors that forward kept");
  return saved.step().losses;
}

double forward_backward(Model& model, const Tensor& x, Step step) {
  return ops::sum(losses_and_gradients(model, x, std::move(step)));
}

Evaluation evaluate(Model& model, const Tensor& x, Step step) {
  step.training = false;
  Saved saved(std::move(step));
  const Tensor scores = model.forward(x, saved);
  model.loss().forward(scores, saved);
  return {scores, ops::sum(saved.step().losses)};
}

}  // namespace ninefold
