#include "05_tensor_parallel/linear.h"

namespace ninefold {
namespace {

// What gathers rows does not mind their type.
Operand brought(const LayerEnd& end, const Operand& own) { return {end.forward(own.values), own.scale}; }

}  // namespace

Operand ColumnParallelLinear::own_input(const Tensor& x) const {
  return prepared_ ? prepared_->own() : linear_->input(x, largest_of_rows(input_));
}

Tensor ColumnParallelLinear::forward(const Tensor& x, Saved& saved) {
  const Operand own = own_input(x);
  if (!prepared_) push(saved, own);
  if (prepared_ && prepared_->is_last_user(this)) prepared_->keep(saved);
  Tensor y = saved.keep(SavedOperation::matmul, [&] { return output_.forward(apply(own)); });
  if (prepared_ && prepared_->is_last_user(this)) prepared_->whole() = {};
  return y;
}

Tensor ColumnParallelLinear::apply(const Operand& own) const {
  Operand own_whole;
  Operand& whole = prepared_ ? prepared_->whole() : own_whole;
  const LayerEnd& end = input_end();
  if (!whole.values.defined() && end.in_pieces()) {
    Tensor y = gather_and_multiply(end.group(), own.values, linear_->weight.value, {.transpose_b = true}, whole.values);
    if (linear_->bias) ops::add_bias_(y, linear_->bias->value);
    return y;
  }
  if (!whole.values.defined()) whole = brought(end, own);
  return linear_->apply(whole);
}

// The gradient of this rank's columns of the result.
Operand ColumnParallelLinear::own_gradient(const Tensor& dy) const {
  return linear_->output_gradient(output_.backward(dy), largest_over(input_end().group()));
}

// What was kept is the input as it came: it is brought again. In pieces, while the input's gradient is computed.
Tensor ColumnParallelLinear::backward(const Tensor& dy, Saved& saved) {
  const Operand own = own_gradient(dy);
  Operand own_whole;
  Operand& whole = prepared_ ? prepared_->whole() : own_whole;
  if (!input_end().in_pieces()) {
    if (!whole.values.defined()) whole = brought(input_end(), pop_operand(saved));
    linear_->add_weight_gradients(own, whole, saved);
    own_whole = {};
    return input_.backward(linear_->input_gradient(own));
  }
  const Tensor& weight = linear_->weight.value;
  Pending bringing;
  if (!whole.values.defined()) bringing = input_end().start_forward(saved.pop(), whole.values);
  const Tensor dx = prepared_ ? ops::matmul(own.values, weight)
                              : multiply_and_reduce(input_.group(), own.values, weight, /*options=*/{});
  bringing.wait();
  linear_->add_weight_gradients(own, whole, saved);
  return dx;
}

void ColumnParallelLinear::backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) {
  if (!prepared_ || !prepared_->whole().values.defined()) return Layer::backward_add(dy, saved, dx);
  const Operand own = own_gradient(dy);
  linear_->add_weight_gradients(own, prepared_->whole(), saved);
  if (!prepared_->end().in_pieces() || !prepared_->is_first_user(this)) {
    return multiply_into(dx, own, linear_->weights(), {.accumulate = true});
  }
  prepared_->add_in_pieces([dy = own.values, dx, &weight = linear_->weight](int64_t begin, int64_t end) {
    const Tensor sum = dx.rows(begin, end);
    ops::matmul_into(sum, dy.rows(begin, end), weight.value, {.accumulate = true});
    return sum;
  });
}

Operand RowParallelLinear::own_input(const Tensor& x) const {
  return linear_->input(input_.forward(x), largest_over(output_.group()));
}

Tensor RowParallelLinear::forward(const Tensor& x, Saved& saved) {
  const Operand own = own_input(x);
  push(saved, own);
  return saved.keep(SavedOperation::reduce_scatter, [&] {
    const Tensor& weight = linear_->weight.value;
    Tensor y = output_.in_pieces()
                   ? multiply_and_reduce(output_.group(), own.values, weight, {.transpose_b = true})
                   : output_.forward(multiply(own, linear_->weights(), weight.dtype(), {.transpose_b = true}));
    if (linear_->bias) ops::add_bias_(y, linear_->bias->value);
    return y;
  });
}

// The gradient of all rows of the result, rounded before it is gathered.
Operand RowParallelLinear::whole_gradient(const Tensor& dy) const {
  const Operand own = linear_->output_gradient(dy, largest_of_rows(output_));
  return {output_.backward(own.values), own.scale};
}

Tensor RowParallelLinear::backward(const Tensor& dy, Saved& saved) {
  if (output_.in_pieces()) {
    Tensor whole;
    const Tensor dx = gather_and_multiply(output_.group(), dy, linear_->weight.value, {}, whole);
    linear_->add_weight_gradients({whole}, {saved.pop()}, saved);
    return input_.backward(dx);
  }
  const Operand whole = whole_gradient(dy);
  linear_->add_weight_gradients(whole, pop_operand(saved), saved);
  return input_.backward(linear_->input_gradient(whole));
}

}  // namespace ninefold
