// What the vector loops of the CPU back end share.
#pragma once

#include "common/tensor/cpu/simd.h"
#include "common/tensor/storage_type.h"

namespace ninefold {

// target[i] += addend[i], rounded to T.
template <typename T>
void add_in_place(T* target, const float* addend, int64_t n) {
  simd::for_each_vector(n, [&](int64_t i, auto in_use) {
    simd::store(target + i, simd::load(target + i, in_use) + simd::load(addend + i, in_use), in_use);
  });
}

}  // namespace ninefold
