// A layer: forward, backward, and its named parts. Everything in the course is one of these.
#pragma once

#include <memory>
#include <string_view>

#include "common/nn/parameter.h"
#include "common/nn/saved.h"

namespace ninefold {

class Layer;
class AttentionCore;
class Router;
class Experts;

// Is shown the parts of a layer, in forward order. Slots may be refilled: that is how techniques wrap and swap layers.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void slot(std::string_view /*name*/, std::unique_ptr<Layer>& /*child*/) {}
  virtual void core(std::string_view /*name*/, std::unique_ptr<AttentionCore>& /*core*/) {}
  virtual void router(std::string_view name, std::unique_ptr<Router>& router);
  virtual void experts(std::string_view name, std::unique_ptr<Experts>& experts);
  // A part that is always of its own type.
  virtual void member(std::string_view /*name*/, Layer& /*child*/) {}
  virtual void parameter(std::string_view /*name*/, Parameter& /*parameter*/) {}
  // A parameter that belongs to another layer, which shows it as its own.
  virtual void tied(std::string_view /*name*/, Parameter& /*parameter*/) {}
  virtual void buffer(std::string_view /*name*/, Buffer& /*buffer*/) {}
};

class Layer {
 public:
  virtual ~Layer() = default;
  // Returns the output, a new tensor; pushes what the backward needs. Large results pass through Saved::keep, so that a
  // forward that is run again need not compute them.
  virtual Tensor forward(const Tensor& x, Saved& saved) = 0;
  // Takes the gradient of the output, returns that of the input (undefined where the input has none), and adds the
  // gradients of the parameters. Pops what forward pushed.
  virtual Tensor backward(const Tensor& dy, Saved& saved) = 0;

  // sum += forward(x), dx += backward(dy): a linear layer adds inside its matmul instead of in another pass.
  virtual void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) {
    const Tensor y = forward(x, saved);
    if (saved.results_needed()) ops::add_(sum, y);
  }
  virtual void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) { ops::add_(dx, backward(dy, saved)); }

  virtual void visit(Visitor&) {}
};

// Turns the model's last output into one loss a row, in saved.step().losses.
class Loss {
 public:
  virtual ~Loss() = default;
  // May keep `scores` and overwrite them in the backward.
  virtual void forward(const Tensor& scores, Saved& saved) = 0;
  // The gradient, with respect to the scores, of the sum of the losses divided by the global number of targets,
  // times the step's loss scale.
  virtual Tensor backward(Saved& saved) = 0;
  // Rows whose target has the highest score; for evaluation.
  virtual int64_t count_correct(const Tensor& scores, const Tensor& targets) const {
    return ops::count_correct(scores, targets);
  }
};

}  // namespace ninefold
