// The tensor cores' product of one warp: c [16, 8] += a [16, 16] b [16, 8], of 16-bit floats, summed in f32
// (mma.sync.m16n8k16). Every lane holds a part of each. With group = lane / 4 and pair = 2 * (lane % 4):
//   a: words of two elements, at rows group, group + 8, group, group + 8 and columns pair, pair, pair + 8, pair + 8
//   b: words of two elements, one above the other, at rows pair, pair + 8 and column group
//   c: at rows group, group, group + 8, group + 8 and columns pair, pair + 1, pair, pair + 1
#pragma once

#include <cstdint>

#include "common/tensor/dtype.h"

namespace ninefold::cuda {

__device__ inline void multiply_words(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_words(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace ninefold::cuda
