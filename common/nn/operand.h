// What a linear layer multiplies: tensors as they are, or 8-bit floats with one scale a tensor, found anew for each
// tensor (Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv 2209.05433; as torchao's float8 training). The
// arithmetic of one rank: how a scale becomes that of a tensor in parts is whoever divides it to say.
#pragma once

#include <functional>

#include "common/nn/saved.h"
#include "common/tensor/ops.h"

namespace ninefold {

// `values` of type f8_e4m3 or f8_e5m2 stand for values * scale; others for themselves.
struct Operand {
  Tensor values;
  float scale = 1;

  bool is_f8() const { return !is_float(values.dtype()); }
};

// From the largest magnitude of the part of a tensor that is here, the largest of all of it.
using ShareLargest = std::function<float(float own)>;

// The smallest power of two that brings numbers up to `largest` into the range of an 8-bit type; 1 where all are 0. A
// power of two moves no bit of a fraction: x is rounded once, and two runs whose largest numbers differ in their last
// bits have the same scale. Throws UserError if `largest` is not finite.
float f8_scale(float largest, Dtype dtype);

// x in an 8-bit type, with the scale of its largest element: of this tensor, or, with `share`, of all its parts.
Operand round_to_f8(const Tensor& x, Dtype dtype, const ShareLargest& share = {});

// out [m, n] = a · b, as ops::matmul_into, or, of 8-bit floats, as ops::matmul_f8_into.
void multiply_into(const Tensor& out, const Operand& a, const Operand& b, ops::MatmulOptions options = {});
// The same into a new tensor.
Tensor multiply(const Operand& a, const Operand& b, Dtype dtype, ops::MatmulOptions options = {});

// An operand that the backward needs, with its scale.
void push(Saved& saved, const Operand& operand);
Operand pop_operand(Saved& saved);

}  // namespace ninefold
