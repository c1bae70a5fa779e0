// What the back ends' loops share: choosing the storage type, and scratch memory.
#pragma once

#include "common/tensor/tensor.h"

namespace ninefold {

// Memory for the length of one call, booked as workspace.
inline Tensor workspace(const DeviceHandle& device, int64_t elements, Dtype dtype = Dtype::f32) {
  const MemoryScope scope(*device, MemoryKind::workspace);
  return Tensor::empty(device, {elements}, dtype);
}

// Calls body(T()) with T the storage type, float, bf16 or f16, so that one loop serves all: `using T = decltype(type)`.
template <typename Body>
void for_float_type(Dtype dtype, Body&& body) {
  expect(is_float(dtype), "{} is not a float type", name_of(dtype));
  if (dtype == Dtype::f32) body(float());
  if (dtype == Dtype::bf16) body(bf16());
  if (dtype == Dtype::f16) body(f16());
}

// The same with the 8-bit floats.
template <typename Body>
void for_f8_type(Dtype dtype, Body&& body) {
  dtype == Dtype::f8_e4m3 ? body(f8_e4m3()) : body(f8_e5m2());
}

template <typename Body>
void for_float_types(Dtype first, Dtype second, Body&& body) {
  for_float_type(first, [&](auto a) { for_float_type(second, [&](auto b) { body(a, b); }); });
}

}  // namespace ninefold
