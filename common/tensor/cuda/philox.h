// Philox 4x32-10 (Salmon et al. 2011), one counter at a time; the words are those of Random123's philox4x32.
#pragma once

#include <gpu.h>  // of device/ or of fibres/

#include <cstdint>

namespace ninefold::NINEFOLD_GPU {

struct RandomWords {
  uint32_t word[4];
};

__host__ __device__ inline RandomWords philox(RandomWords counter, uint64_t key) {
  auto& word = counter.word;
  auto key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * word[0], product1 = uint64_t{0xCD9E8D57u} * word[2];
    word[0] = static_cast<uint32_t>(product1 >> 32) ^ word[1] ^ key0;
    word[1] = static_cast<uint32_t>(product1);
    word[2] = static_cast<uint32_t>(product0 >> 32) ^ word[3] ^ key1;
    word[3] = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace ninefold::NINEFOLD_GPU
