// The twin of device/warp_product.h: the same parts in the same lanes, multiplied in a loop.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/tensor/cuda/fibres/gpu.h"
#include "common/tensor/dtype.h"

namespace ninefold::fibres {

struct WarpOperands {
  uint32_t a[4], b[2];
};

// Element `half` of a word.
template <typename T>
float element_of(uint32_t word, int half) {
  T value;
  value.bits = static_cast<uint16_t>(word >> (16 * half));
  return static_cast<float>(value);
}

template <typename T>
void multiply_words(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T) {
  Fibres& warp = Fibres::running();
  const WarpOperands own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  std::memcpy(warp.own_slot(), &own, sizeof own);
  const auto* const all = warp.slot_of(0);
  warp.wait_for_warp();
  const auto operands_of = [&](int lane) {
    WarpOperands operands;
    std::memcpy(&operands, all + static_cast<size_t>(lane) * Fibres::slot_bytes, sizeof operands);
    return operands;
  };
  const int group = static_cast<int>(warp.lane()) / 4, pair = static_cast<int>(warp.lane()) % 4 * 2;
  for (int k = 0; k < 16; ++k) {
    const int half = k % 2, lane_of_k = k % 8 / 2;
    const WarpOperands row = operands_of(group * 4 + lane_of_k);  // of rows group and group + 8
    for (int i = 0; i < 4; ++i) {
      const WarpOperands column = operands_of((pair + i % 2) * 4 + lane_of_k);
      c[i] += element_of<T>(row.a[i / 2 + k / 8 * 2], half) * element_of<T>(column.b[k / 8], half);
    }
  }
}

}  // namespace ninefold::fibres
