// What every function of ops.cpp does around its kernel: check that the tensors fit together, and tell the device's
// hook what the kernel cost.
#pragma once

#include <initializer_list>

#include "common/tensor/kernels.h"

namespace ninefold::ops {

// One call of an operation. Every check throws Error with a sentence that begins with the operation's name.
class Operation {
 public:
  // All `tensors` must be defined and on one device.
  Operation(const char* name, std::initializer_list<const Tensor*> tensors);

  Kernels& kernels() const { return device_.kernels(); }
  // Whether anybody asks for the cost.
  bool observed() const { return static_cast<bool>(device_.after_kernel); }
  // Calls the hook. `touched`: every tensor read or written, those read and written twice; undefined ones count
  // nothing.
  void done(double flops, std::initializer_list<const Tensor*> touched) const;

  void same_device(const Tensor& x) const;
  void has_shape(const Tensor& x, const Shape& shape) const;
  void has_rank(const Tensor& x, int rank) const;
  void same_size(const Tensor& x, const Tensor& y) const;
  void has_dtype(const Tensor& x, Dtype dtype) const;
  void is_float(const Tensor& x) const;
  // One of the 8-bit floats.
  void is_f8(const Tensor& x) const;
  // x is f32 or of y's type: what a sum over elements of y's type may be kept in.
  void can_hold_sum(const Tensor& x, const Tensor& y) const;
  // The same shape, type and device.
  void alike(const Tensor& x, const Tensor& y) const;

 private:
  const char* name_;
  Device& device_;
};

// A new tensor of the same shape, type and device.
Tensor empty_like(const Tensor& x);
// Product of all dimensions but the last.
int64_t rows_of(const Tensor& x);

}  // namespace ninefold::ops
