// Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), many counters at once. The words
// are those of Random123's philox4x32.
#pragma once

#include <array>

#include "common/tensor/cpu/simd.h"

namespace ninefold::simd {

using UnsignedLongs = uint64_t __attribute__((vector_size(vector_bytes)));  // `lanes / 2`

// One word of `lanes / 2` counters or keys: 32 bits in each 64-bit lane, so that products keep all their bits.
struct PhiloxCounter {
  UnsignedLongs word[4];
};

inline PhiloxCounter philox(PhiloxCounter counter, uint64_t key) {
  const uint64_t low_half = 0xffffffffu;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  auto& word = counter.word;
  for (int round = 0; round < 10; ++round) {
    const UnsignedLongs product0 = word[0] * uint64_t{0xD2511F53u}, product1 = word[2] * uint64_t{0xCD9E8D57u};
    word[0] = (product1 >> 32) ^ word[1] ^ uint64_t { key0 };
    word[1] = product1 & low_half;
    word[2] = (product0 >> 32) ^ word[3] ^ uint64_t { key1 };
    word[3] = product0 & low_half;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Random words for consecutive elements: word i belongs to element 4 * group + i % 4 of its counter's four.
inline constexpr int philox_elements = 2 * lanes;

// Words of elements [4 * first_group, 4 * first_group + philox_elements), in order: word i % 4 of the counter
// (group's low half, group's high half, word2, word3) with group = i / 4.
inline std::array<Words, 2> philox_words(uint64_t first_group, uint32_t word2, uint32_t word3, uint64_t key) {
  constexpr int groups = lanes / 2;
  UnsignedLongs group = {};
  for (int i = 0; i < groups; ++i) group[i] = first_group + static_cast<uint64_t>(i);
  const UnsignedLongs zero = {};
  const PhiloxCounter random = philox({{group & 0xffffffffu, group >> 32, zero + word2, zero + word3}}, key);
  const UnsignedLongs front = random.word[0] | (random.word[1] << 32), back = random.word[2] | (random.word[3] << 32);
  // Lane i of `front` and `back` holds words 0, 1 and 2, 3 of group i: interleave them.
  return [&]<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Words, 2>{
        std::bit_cast<Words>(__builtin_shufflevector(front, back, (i / 2 + i % 2 * groups)...)),
        std::bit_cast<Words>(__builtin_shufflevector(front, back, (groups / 2 + i / 2 + i % 2 * groups)...))};
  }
  (std::make_integer_sequence<int, groups>{});
}

}  // namespace ninefold::simd
