#include "05_tensor_parallel/linear.h"

namespace ninefold {

Tensor ColumnParallelLinear::forward(const Tensor& x, Saved& saved) {
  if (!prepared_) saved.push(x);
  if (keeps_prepared_) prepared_->keep(saved);
  return saved.keep(SavedOperation::matmul, [&] { return output_.forward(linear_->apply(input_.forward(x))); });
}

// What is kept is the input as it came; whole rows are gathered again.
Tensor ColumnParallelLinear::whole_input(Saved& saved) const {
  return prepared_ ? prepared_->whole(saved) : input_.forward(saved.pop());
}

Tensor ColumnParallelLinear::backward(const Tensor& dy, Saved& saved) {
  const Tensor own = output_.backward(dy);
  linear_->add_weight_gradients(own, whole_input(saved), saved);
  return input_.backward(ops::matmul(own, linear_->weight.value));
}

void ColumnParallelLinear::backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) {
  if (!prepared_) return Layer::backward_add(dy, saved, dx);
  const Tensor own = output_.backward(dy);
  linear_->add_weight_gradients(own, whole_input(saved), saved);
  ops::matmul_into(dx, own, linear_->weight.value, {.accumulate = true});
}

Tensor RowParallelLinear::forward(const Tensor& x, Saved& saved) {
  const Tensor own = input_.forward(x);
  saved.push(own);
  return saved.keep(SavedOperation::reduce_scatter, [&] {
    Tensor y = output_.forward(ops::matmul(own, linear_->weight.value, {.transpose_b = true}));
    if (linear_->bias) ops::add_bias_(y, linear_->bias->value);
    return y;
  });
}

Tensor RowParallelLinear::backward(const Tensor& dy, Saved& saved) {
  const Tensor whole = output_.backward(dy);
  linear_->add_weight_gradients(whole, saved.pop(), saved);
  return input_.backward(ops::matmul(whole, linear_->weight.value));
}

}  // namespace ninefold
