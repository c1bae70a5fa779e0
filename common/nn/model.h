// A model is a list of named layers and a loss: its forward is a loop over children. That is what pipeline stages cut,
// what sharding wraps and what a trace names.
#pragma once

#include <string>
#include <vector>

#include "common/nn/layer.h"

namespace ninefold {

// Consecutive children of a model, from `begin` up to `end`.
struct Children {
  size_t begin = 0, end = 0;
};

class Model : public Layer {
 public:
  explicit Model(std::unique_ptr<Loss> loss) : loss_(std::move(loss)) {}

  // Appends a child. Its name may contain dots ("layers.3").
  void add(std::string name, std::unique_ptr<Layer> layer) { children_.push_back({std::move(name), std::move(layer)}); }

  // x: the data of one micro-batch (tokens i32 [rows], or images). Returns the scores.
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dscores, Saved& saved) override;
  // The backward of the loss and then of all children.
  Tensor backward_from_loss(Saved& saved);
  // The same for some of the children: from the input of the first to the output of the last, and back.
  Tensor forward(Tensor x, Saved& saved, Children part);
  Tensor backward(Tensor dy, Saved& saved, Children part);
  void visit(Visitor& visitor) override;
  Loss& loss() { return *loss_; }
  void replace_loss(std::unique_ptr<Loss> loss) { loss_ = std::move(loss); }

  size_t size() const { return children_.size(); }
  const std::string& name_of(size_t child) const { return children_.at(child).name; }
  Layer& child(size_t child) { return *children_.at(child).layer; }

  // Gives every parameter below its full path as its name. Called once, when all children are in.
  void name_parameters();

 private:
  Children all() const { return {0, children_.size()}; }
  struct Child {
    std::string name;
    std::unique_ptr<Layer> layer;
  };
  std::vector<Child> children_;
  std::unique_ptr<Loss> loss_;
};

// All parameters below `layer`, in forward order.
std::vector<Parameter*> parameters_of(Layer& layer);
// The same with those that belong to other layers, and as often as a layer uses them.
std::vector<Parameter*> parameters_used_by(Layer& layer);
// Elements of all parameters, by their global shapes.
int64_t parameter_count(Layer& layer);

struct Precision {
  Dtype stored = Dtype::f32;    // of the parameters that each rank owns and updates
  Dtype compute = Dtype::f32;   // of parameters as layers use them, and of activations
  Dtype gradient = Dtype::f32;  // of the parameters' gradients
  Dtype output = Dtype::f32;    // of the scores, from which the loss is made
  std::string f8_linears{};     // pattern of the layers whose linear layers multiply in 8 bits; empty: none do

  // Whether anything in the model's arithmetic is narrower than f32.
  bool is_narrow() const { return compute != Dtype::f32 || !f8_linears.empty(); }
};
// "f32"; where parameters are stored otherwise, "bf16 from f32"; with f8_linears, "f32, f8 linears in layers.*".
std::string to_string(const Precision& precision);

// Makes the model's last layer give scores of another type than it computes with, and take their gradient back; nothing
// where they are alike. To be called before other techniques wrap layers.
void cast_scores(Model& model, const Precision& precision);

// Gives every parameter its initial value, by global index from `seed`. Those for which no technique has laid out
// tensors yet get a value and a gradient of their own, and, where `stored` is not `compute`, a value of each type.
void materialize(Layer& layer, const DeviceHandle& device, const Precision& precision, uint64_t seed);

// One micro-batch: forward, loss, backward. Gradients are added; returns the losses, f32 [rows].
Tensor losses_and_gradients(Model& model, const Tensor& x, Step step);
// The same; returns the sum of the losses (f64).
double forward_backward(Model& model, const Tensor& x, Step step);
// Forward and loss only; nothing is kept. Returns the scores and the sum of the losses.
struct Evaluation {
  Tensor scores;
  double loss_sum;
};
Evaluation evaluate(Model& model, const Tensor& x, Step step);

}  // namespace ninefold
