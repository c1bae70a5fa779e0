#include "common/nn/vision.h"

#include <cmath>

namespace ninefold {
namespace {

ops::Distribution torch_default(int64_t fan_in) {
  return {.kind = ops::Distribution::Kind::uniform, .width = 1 / std::sqrt(static_cast<double>(fan_in))};
}

}  // namespace

Convolution::Convolution(int64_t in, int64_t out, int64_t kernel, bool is_first)
    : weight({out, in, kernel, kernel}, torch_default(in * kernel * kernel)),
      bias({out}, torch_default(in * kernel * kernel)),
      is_first_(is_first) {}

Tensor Convolution::forward(const Tensor& images, Saved& saved) {
  const bool matches = images.dtype() == weight.value.dtype();
  const Tensor x = matches ? images : ops::cast(images, weight.value.dtype());
  saved.push(x);
  return saved.keep(SavedOperation::convolution, [&] { return ops::convolution(x, weight.value, bias.value); });
}

Tensor Convolution::backward(const Tensor& dy, Saved& saved) {
  const Tensor x = saved.pop();
  Tensor dx;
  weight.add_gradient([&](const Tensor& dweight) {
    bias.add_gradient(
        [&](const Tensor& dbias) { dx = ops::convolution_backward(dy, x, weight.value, dweight, dbias, !is_first_); });
  });
  return dx;
}

void Convolution::visit(Visitor& visitor) {
  visitor.parameter("weight", weight);
  visitor.parameter("bias", bias);
}

Tensor MaxPool::forward(const Tensor& x, Saved& saved) {
  const auto [y, index] = saved.keep(SavedOperation::max, [&] {
    const auto result = ops::max_pool(x);
    return std::array{result.y, result.index};
  });
  saved.push(index);
  return y;
}

Tensor MaxPool::backward(const Tensor& dy, Saved& saved) {
  const Tensor index = saved.pop();
  return ops::max_pool_backward(dy, index, {dy.dim(0), dy.dim(1), 2 * dy.dim(2), 2 * dy.dim(3)});
}

Tensor Relu::forward(const Tensor& x, Saved& saved) {
  Tensor y = ops::relu(x);
  saved.push(y);
  return y;
}

Tensor Relu::backward(const Tensor& dy, Saved& saved) { return ops::relu_backward(dy, saved.pop()); }

Tensor Flatten::forward(const Tensor& x, Saved& saved) {
  saved.push(x);
  return x.reshape({x.dim(0), x.size() / std::max<int64_t>(x.dim(0), 1)});
}

Tensor Flatten::backward(const Tensor& dy, Saved& saved) { return dy.reshape(saved.pop().shape()); }

ops::DropoutKey Dropout::key(const Step& step) const {
  return {.seed = step.seed,
          .step = step.number,
          .layer = index_,
          .first_sample = step.first_sample,
          .rows_per_sample = step.rows_per_sample};
}

Tensor Dropout::forward(const Tensor& x, Saved& saved) {
  if (!saved.step().training) return x;
  return saved.keep(SavedOperation::dropout, [&] { return ops::dropout(x, probability_, key(saved.step())); });
}

Tensor Dropout::backward(const Tensor& dy, Saved& saved) { return ops::dropout(dy, probability_, key(saved.step())); }

}  // namespace ninefold
