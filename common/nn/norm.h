// Root-mean-square normalisation with the residual add fused in.
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// weight [features], initially one. Normalises the last dimension of [rows, features].
class RmsNorm : public Layer {
 public:
  RmsNorm(int64_t features, float eps);

  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;

  // sum = x + residual and its normalisation, in one pass. The caller may overwrite `sum`.
  struct Output {
    Tensor sum, y;
  };
  Output forward_sum(const Tensor& x, const Tensor& residual, Saved& saved);
  // dy is the gradient of y, dsum that of everything else made of the sum; returns the gradient of the sum, which is
  // that of x and of the residual alike. Serves forward (residual undefined) and forward_sum.
  Tensor backward_sum(const Tensor& dy, const Tensor& dsum, Saved& saved);

  void visit(Visitor& visitor) override;

  Parameter weight;

 private:
  float eps_;
};

}  // namespace ninefold
