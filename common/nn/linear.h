// y = x Wᵀ + b.
#pragma once

#include <optional>

#include "common/nn/layer.h"

namespace ninefold {

// weight [out, in]; bias [out] if asked. x [rows, in] -> y [rows, out]. Data of another type than the weight's are
// converted first.
class Linear : public Layer {
 public:
  Linear(int64_t in, int64_t out, ops::Distribution weight_initial,
         std::optional<ops::Distribution> bias_initial = std::nullopt);

  Tensor forward(const Tensor& data, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override;
  void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) override;
  void visit(Visitor& visitor) override;

  // x Wᵀ + b, and what dy adds to the gradients of W and b: for layers that arrange the two otherwise.
  Tensor apply(const Tensor& x) const;
  void add_weight_gradients(const Tensor& dy, const Tensor& x, Saved& saved);

  Parameter weight;
  std::optional<Parameter> bias;
};

}  // namespace ninefold
