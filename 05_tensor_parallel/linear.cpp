#include "05_tensor_parallel/linear.h"

namespace ninefold {

Tensor ColumnParallelLinear::forward(const Tensor& x, Saved& saved) {
  if (!prepared_) saved.push(x);
  if (prepared_ && prepared_->is_last_user(this)) prepared_->keep(saved);
  Tensor y = saved.keep(SavedOperation::matmul, [&] { return output_.forward(apply(x)); });
  if (prepared_ && prepared_->is_last_user(this)) prepared_->whole() = Tensor();
  return y;
}

Tensor ColumnParallelLinear::apply(const Tensor& x) const {
  Tensor own_whole;
  Tensor& whole = prepared_ ? prepared_->whole() : own_whole;
  const LayerEnd& end = input_end();
  if (!whole.defined() && end.in_pieces()) {
    Tensor y = gather_and_multiply(end.group(), x, linear_->weight.value, {.transpose_b = true}, whole);
    if (linear_->bias) ops::add_bias_(y, linear_->bias->value);
    return y;
  }
  if (!whole.defined()) whole = end.forward(x);
  return linear_->apply(whole);
}

// What was kept is the input as it came: it is brought again. In pieces, while the input's gradient is computed.
Tensor ColumnParallelLinear::backward(const Tensor& dy, Saved& saved) {
  const Tensor own = output_.backward(dy), &weight = linear_->weight.value;
  Tensor own_whole;
  Tensor& whole = prepared_ ? prepared_->whole() : own_whole;
  if (!input_end().in_pieces()) {
    if (!whole.defined()) whole = input_end().forward(saved.pop());
    linear_->add_weight_gradients(own, whole, saved);
    own_whole = Tensor();
    return input_.backward(ops::matmul(own, weight));
  }
  Pending bringing;
  if (!whole.defined()) bringing = input_end().start_forward(saved.pop(), whole);
  const Tensor dx =
      prepared_ ? ops::matmul(own, weight) : multiply_and_reduce(input_.group(), own, weight, /*options=*/{});
  bringing.wait();
  linear_->add_weight_gradients(own, whole, saved);
  return dx;
}

void ColumnParallelLinear::backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) {
  if (!prepared_ || !prepared_->whole().defined()) return Layer::backward_add(dy, saved, dx);
  const Tensor own = output_.backward(dy);
  linear_->add_weight_gradients(own, prepared_->whole(), saved);
  const auto add = [own, dx, &weight = linear_->weight](int64_t begin, int64_t end) {
    const Tensor sum = dx.rows(begin, end);
    ops::matmul_into(sum, own.rows(begin, end), weight.value, {.accumulate = true});
    return sum;
  };
  if (prepared_->end().in_pieces() && prepared_->is_first_user(this)) return prepared_->add_in_pieces(add);
  add(0, dx.dim(0));
}

Tensor RowParallelLinear::forward(const Tensor& x, Saved& saved) {
  const Tensor own = input_.forward(x);
  saved.push(own);
  return saved.keep(SavedOperation::reduce_scatter, [&] {
    const Tensor& weight = linear_->weight.value;
    Tensor y = output_.in_pieces() ? multiply_and_reduce(output_.group(), own, weight, {.transpose_b = true})
                                   : output_.forward(ops::matmul(own, weight, {.transpose_b = true}));
    if (linear_->bias) ops::add_bias_(y, linear_->bias->value);
    return y;
  });
}

Tensor RowParallelLinear::backward(const Tensor& dy, Saved& saved) {
  const Tensor& weight = linear_->weight.value;
  if (output_.in_pieces()) {
    Tensor whole;
    const Tensor dx = gather_and_multiply(output_.group(), dy, weight, {}, whole);
    linear_->add_weight_gradients(whole, saved.pop(), saved);
    return input_.backward(dx);
  }
  const Tensor whole = output_.backward(dy);
  linear_->add_weight_gradients(whole, saved.pop(), saved);
  return input_.backward(ops::matmul(whole, weight));
}

}  // namespace ninefold
