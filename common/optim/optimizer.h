// Optimizers over a model's parameters: f32 master values and states, one fused pass a parameter.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/nn/parameter.h"

namespace ninefold {

enum class OptimizerKind { adamw, adadelta, sgd };

// Names and defaults follow torch.optim and the Llama recipes.
struct OptimizerSettings {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.9, beta2 = 0.95;  // adamw
  double eps = 1e-8;                 // adamw, adadelta
  double rho = 0.9;                  // adadelta
  double momentum = 0;               // sgd
  double weight_decay = 0;
  bool decay_vectors = false;  // whether norms and biases decay too
};

// Owns the states. Where parameters are not f32 it also owns f32 master
// values, which start from the same seed as the parameters. The parameters must outlive it.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One update of every parameter from its gradient times `gradient_scale`.
  void step(double lr, float gradient_scale);

  // Shows every tensor that a checkpoint needs beside the parameters: "master" (where there is one) and the states by
  // torch's names ("exp_avg", "exp_avg_sq", …), each of the parameter's local shape.
  using Visit = std::function<void(const std::string& state, const Parameter& parameter, const Tensor& tensor)>;
  void visit(const Visit& visit) const;

  // Updates made so far.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  Optimizer(const std::vector<Parameter*>& parameters, const OptimizerSettings& settings,
            std::vector<std::string> state_names, uint64_t seed, MemoryKind kind);
  virtual void update(const ops::UpdateTensors& tensors, const std::vector<Tensor>& states, double lr,
                      double weight_decay) = 0;

  OptimizerSettings settings_;
  int64_t steps_ = 0;

 private:
  struct Entry {
    Parameter* parameter;
    Tensor master;  // undefined where the parameter is f32 itself
    std::vector<Tensor> states;
  };
  std::vector<std::string> state_names_;
  std::vector<Entry> entries_;
};

// `kind`: under which the states are booked.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerSettings& settings, const std::vector<Parameter*>& parameters,
                                          uint64_t seed, MemoryKind kind = MemoryKind::optimizer);

// Tensors of f32 that the optimizer has for each parameter stored as `stored`: master values and states.
int64_t optimizer_tensors(const OptimizerSettings& settings, Dtype stored);

// Bytes of master values and states for parameters stored as `stored`, 64-byte rounding included: the prediction.
int64_t optimizer_bytes(const OptimizerSettings& settings, const std::vector<Parameter*>& parameters, Dtype stored);

}  // namespace ninefold
