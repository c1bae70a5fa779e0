// y = x Wᵀ + b.
#pragma once

#include <optional>

#include "common/nn/layer.h"
#include "common/nn/operand.h"

namespace ninefold {

// weight [out, in]; bias [out] if asked. x [rows, in] -> y [rows, out]. Data of another type than the weight's are
// converted first.
class Linear : public Layer {
  std::optional<Parameter> own_weight_;

 public:
  Linear(int64_t in, int64_t out, ops::Distribution weight_initial,
         std::optional<ops::Distribution> bias_initial = std::nullopt);
  // With the table of an embedding, which must outlive it, as the weight (Press, Wolf 2016, arXiv 1608.05859).
  explicit Linear(Parameter& table);
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  Tensor forward(const Tensor& data, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override;
  void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) override;
  void visit(Visitor& visitor) override;

  // For layers that arrange the products otherwise. What is multiplied: x and W are rounded to f8_e4m3 and dy to
  // f8_e5m2 where the layer multiplies in 8 bits, with the scale of all parts of x or dy where `share` tells it.
  Operand input(const Tensor& x, const ShareLargest& share = {}) const;
  Operand output_gradient(const Tensor& dy, const ShareLargest& share = {}) const;
  Operand weights() const;
  // x Wᵀ + b; what dy adds to the gradients of W and b; dy W, the gradient of x.
  Tensor apply(const Operand& x) const;
  void add_weight_gradients(const Operand& dy, const Operand& x, Saved& saved);
  Tensor input_gradient(const Operand& dy) const;

  bool is_tied() const { return !own_weight_; }

  Parameter& weight;
  std::optional<Parameter> bias;
  bool in_f8 = false;  // has no bias then
};

}  // namespace ninefold
