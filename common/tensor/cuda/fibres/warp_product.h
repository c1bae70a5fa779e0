// The twin of device/warp_product.h: the same parts in the same lanes, multiplied in a loop.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/tensor/cuda/fibres/gpu.h"
#include "common/tensor/dtype.h"

namespace ninefold::fibres {

// What a lane holds of a and b.
struct WarpOperands {
  float a[8], b[4];
};

// The two elements of a word.
template <typename T>
void unpack(float* to, uint32_t word) {
  for (int half = 0; half < 2; ++half) {
    T value;
    value.bits = static_cast<uint16_t>(word >> (16 * half));
    to[half] = static_cast<float>(value);
  }
}

template <typename T>
void multiply_words(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T) {
  Fibres& warp = Fibres::running();
  WarpOperands own;
  for (int i = 0; i < 4; ++i) unpack<T>(own.a + 2 * i, a[i]);
  for (int i = 0; i < 2; ++i) unpack<T>(own.b + 2 * i, b[i]);
  std::memcpy(warp.own_slot(), &own, sizeof own);
  const auto* const lanes = reinterpret_cast<const WarpOperands*>(warp.slot_of(0));
  static_assert(sizeof(WarpOperands) == Fibres::slot_bytes);
  warp.wait_for_warp();
  const unsigned group = warp.lane() / 4, pair = warp.lane() % 4 * 2;
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned half = k % 2, lane_of_k = k % 8 / 2;
    const float* const row = lanes[group * 4 + lane_of_k].a;  // of rows group and group + 8
    for (unsigned i = 0; i < 4; ++i) {
      const float* const column = lanes[(pair + i % 2) * 4 + lane_of_k].b;
      c[i] += row[(i / 2 + k / 8 * 2) * 2 + half] * column[k / 8 * 2 + half];
    }
  }
}

}  // namespace ninefold::fibres
