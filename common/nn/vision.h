// The layers of the MNIST model beside Linear. Images are [n, channels, height, width].
#pragma once

#include "common/nn/layer.h"

namespace ninefold {

// Stride 1, no padding; weight [out, in, kernel, kernel], bias [out]. Initial values as torch.nn.Conv2d's. Images of
// another type than the weight's are converted first.
class Convolution : public Layer {
 public:
  // `is_first`: the input is data and has no gradient; backward then returns undefined.
  Convolution(int64_t in, int64_t out, int64_t kernel, bool is_first = false);
  Tensor forward(const Tensor& images, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void visit(Visitor& visitor) override;

  Parameter weight, bias;

 private:
  bool is_first_;
};

// 2 x 2 windows, stride 2.
class MaxPool : public Layer {
 public:
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
};

class Relu : public Layer {
 public:
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
};

// [n, ...] -> [n, features].
class Flatten : public Layer {
 public:
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
};

// Off outside training. `index` tells the dropouts of one model apart.
class Dropout : public Layer {
 public:
  Dropout(float probability, int64_t index) : probability_(probability), index_(index) {}
  Tensor forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;

 private:
  ops::DropoutKey key(const Step& step) const;
  float probability_;
  int64_t index_;
};

}  // namespace ninefold
