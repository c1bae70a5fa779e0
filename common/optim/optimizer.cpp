#include "common/optim/optimizer.h"

namespace ninefold {
namespace {

std::vector<std::string> state_names(const OptimizerSettings& settings) {
  switch (settings.kind) {
    case OptimizerKind::adamw:
      return {"exp_avg", "exp_avg_sq"};
    case OptimizerKind::adadelta:
      return {"square_avg", "acc_delta"};
    case OptimizerKind::sgd:
      break;
  }
  return settings.momentum != 0 ? std::vector<std::string>{"momentum_buffer"} : std::vector<std::string>{};
}

class AdamwOptimizer : public Optimizer {
 public:
  AdamwOptimizer(const std::vector<Parameter*>& parameters, const OptimizerSettings& settings, uint64_t seed,
                 MemoryKind kind)
      : Optimizer(parameters, settings, state_names(settings), seed, kind) {}

 private:
  void update(const ops::UpdateTensors& tensors, const std::vector<Tensor>& states, double lr,
              double weight_decay) override {
    ops::adamw_(tensors, states[0], states[1],
                {.lr = static_cast<float>(lr),
                 .beta1 = static_cast<float>(settings_.beta1),
                 .beta2 = static_cast<float>(settings_.beta2),
                 .eps = static_cast<float>(settings_.eps),
                 .weight_decay = static_cast<float>(weight_decay),
                 .step = steps_});
  }
};

class AdadeltaOptimizer : public Optimizer {
 public:
  AdadeltaOptimizer(const std::vector<Parameter*>& parameters, const OptimizerSettings& settings, uint64_t seed,
                    MemoryKind kind)
      : Optimizer(parameters, settings, state_names(settings), seed, kind) {}

 private:
  void update(const ops::UpdateTensors& tensors, const std::vector<Tensor>& states, double lr,
              double weight_decay) override {
    ops::adadelta_(tensors, states[0], states[1],
                   {.lr = static_cast<float>(lr),
                    .rho = static_cast<float>(settings_.rho),
                    .eps = static_cast<float>(settings_.eps),
                    .weight_decay = static_cast<float>(weight_decay)});
  }
};

class SgdOptimizer : public Optimizer {
 public:
  SgdOptimizer(const std::vector<Parameter*>& parameters, const OptimizerSettings& settings, uint64_t seed,
               MemoryKind kind)
      : Optimizer(parameters, settings, state_names(settings), seed, kind) {}

 private:
  void update(const ops::UpdateTensors& tensors, const std::vector<Tensor>& states, double lr,
              double weight_decay) override {
    ops::sgd_(tensors, states.empty() ? Tensor() : states[0],
              {.lr = static_cast<float>(lr),
               .momentum = static_cast<float>(settings_.momentum),
               .weight_decay = static_cast<float>(weight_decay),
               .step = steps_});
  }
};

}  // namespace

Optimizer::Optimizer(const std::vector<Parameter*>& parameters, const OptimizerSettings& settings,
                     std::vector<std::string> names, uint64_t seed, MemoryKind kind)
    : settings_(settings), state_names_(std::move(names)) {
  for (Parameter* parameter : parameters) {
    const DeviceHandle& device = parameter->owned.value.device();
    const MemoryScope scope(*device, kind);
    Entry entry{.parameter = parameter, .master = {}, .states = {}};
    if (parameter->owned.value.dtype() != Dtype::f32) {
      entry.master = Tensor::empty(device, parameter->local_shape(), Dtype::f32);
      parameter->initialise(entry.master, seed);
    }
    for (size_t state = 0; state < state_names_.size(); ++state) {
      entry.states.push_back(Tensor::zeros(device, parameter->local_shape(), Dtype::f32));
    }
    entries_.push_back(std::move(entry));
  }
}

void Optimizer::step(double lr, float gradient_scale) {
  ++steps_;
  for (const Entry& entry : entries_) {
    const Parameter& parameter = *entry.parameter;
    const bool decays = settings_.decay_vectors || parameter.shape.size() > 1;
    const bool has_master = entry.master.defined();
    update({.parameter = has_master ? entry.master : parameter.owned.value,
            .gradient = parameter.owned.gradient,
            .compute_copy = has_master ? parameter.owned.value : Tensor(),
            .gradient_scale = gradient_scale},
           entry.states, lr, decays ? settings_.weight_decay : 0);
  }
}

void Optimizer::visit(const Visit& visit) const {
  for (const Entry& entry : entries_) {
    if (entry.master.defined()) visit("master", *entry.parameter, entry.master);
    for (size_t state = 0; state < entry.states.size(); ++state) {
      visit(state_names_[state], *entry.parameter, entry.states[state]);
    }
  }
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSettings& settings, const std::vector<Parameter*>& parameters,
                                          uint64_t seed, MemoryKind kind) {
  switch (settings.kind) {
    case OptimizerKind::adamw:
      return std::make_unique<AdamwOptimizer>(parameters, settings, seed, kind);
    case OptimizerKind::adadelta:
      return std::make_unique<AdadeltaOptimizer>(parameters, settings, seed, kind);
    case OptimizerKind::sgd:
      break;
  }
  return std::make_unique<SgdOptimizer>(parameters, settings, seed, kind);
}

int64_t optimizer_tensors(const OptimizerSettings& settings, Dtype stored) {
  return static_cast<int64_t>(state_names(settings).size()) + (stored == Dtype::f32 ? 0 : 1);
}

int64_t optimizer_bytes(const OptimizerSettings& settings, const std::vector<Parameter*>& parameters, Dtype stored) {
  const int64_t copies = optimizer_tensors(settings, stored);
  int64_t bytes = 0;
  for (const Parameter* parameter : parameters) bytes += copies * 4 * elements(parameter->local_shape());
  return bytes;
}

}  // namespace ninefold
