#include "common/tensor/operation.h"

namespace ninefold::ops {
namespace {

Device& device_of_first(const char* name, std::initializer_list<const Tensor*> tensors) {
  expect((*tensors.begin())->defined(), "{}: an argument is undefined", name);
  return *(*tensors.begin())->device();
}

}  // namespace

Operation::Operation(const char* name, std::initializer_list<const Tensor*> tensors)
    : name_(name), device_(device_of_first(name, tensors)) {
  for (const Tensor* tensor : tensors) same_device(*tensor);
}

void Operation::done(double flops, std::initializer_list<const Tensor*> touched) const {
  if (!observed()) return;
  double bytes = 0;
  for (const Tensor* tensor : touched) bytes += tensor->defined() ? static_cast<double>(tensor->bytes()) : 0.0;
  device_.after_kernel({name_, flops, bytes});
}

void Operation::same_device(const Tensor& x) const {
  expect(x.defined(), "{}: an argument is undefined", name_);
  expect(x.device().get() == &device_, "{}: one argument is on another device ({}) than the first ({})", name_,
         ninefold::name_of(x.device()->type()), ninefold::name_of(device_.type()));
}

void Operation::has_shape(const Tensor& x, const Shape& shape) const {
  expect(x.shape() == shape, "{}: an argument of shape {} must have shape {}", name_, to_string(x.shape()),
         to_string(shape));
}

void Operation::has_rank(const Tensor& x, int rank) const {
  expect(x.rank() == rank, "{}: an argument of shape {} must have {} dimensions", name_, to_string(x.shape()), rank);
}

void Operation::same_size(const Tensor& x, const Tensor& y) const {
  expect(x.size() == y.size(), "{}: shapes {} and {} must hold equally many elements", name_, to_string(x.shape()),
         to_string(y.shape()));
}

void Operation::has_dtype(const Tensor& x, Dtype dtype) const {
  expect(x.dtype() == dtype, "{}: an argument of type {} must be {}", name_, ninefold::name_of(x.dtype()),
         ninefold::name_of(dtype));
}

void Operation::is_float(const Tensor& x) const {
  expect(ninefold::is_float(x.dtype()), "{}: an argument of type {} must be f32, bf16 or f16", name_,
         ninefold::name_of(x.dtype()));
}

void Operation::is_f8(const Tensor& x) const {
  expect(x.dtype() == Dtype::f8_e4m3 || x.dtype() == Dtype::f8_e5m2,
         "{}: an argument of type {} must be f8_e4m3 or f8_e5m2", name_, ninefold::name_of(x.dtype()));
}

void Operation::can_hold_sum(const Tensor& x, const Tensor& y) const {
  expect(x.dtype() == Dtype::f32 || x.dtype() == y.dtype(), "{}: a sum of type {} must be f32 or {}", name_,
         ninefold::name_of(x.dtype()), ninefold::name_of(y.dtype()));
}

void Operation::alike(const Tensor& x, const Tensor& y) const {
  same_device(x);
  has_shape(x, y.shape());
  has_dtype(x, y.dtype());
}

Tensor empty_like(const Tensor& x) { return Tensor::empty(x.device(), x.shape(), x.dtype()); }

int64_t rows_of(const Tensor& x) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < x.rank(); ++i) rows *= x.dim(i);
  return rows;
}

}  // namespace ninefold::ops
