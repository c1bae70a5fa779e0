// Random numbers by counter (Philox 4x32-10: Salmon et al. 2011): each is a pure function of a key and its place, so
// that any rank can draw any of them without drawing those before.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace ninefold {

// A 64-bit key for a named thing (a parameter, a shuffle) under a seed; the same on every machine and in every release.
uint64_t hash_key(uint64_t seed, std::string_view name);

// A stream of random numbers on the host, for shuffles and the like. Streams of one key with different `stream`
// numbers are independent.
class RandomStream {
 public:
  explicit RandomStream(uint64_t key, uint64_t stream = 0) : key_(key), stream_(stream) {}

  // All 2^64 values equally likely.
  uint64_t next();
  // 0 … bound - 1, all equally likely. `bound` is positive.
  uint64_t below(uint64_t bound);
  // [0, 1)
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

  // All orders equally likely (Fisher, Yates 1938).
  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }

 private:
  uint64_t key_, stream_;
  uint64_t counter_ = 0;
  uint64_t spare_ = 0;  // the second half of a Philox block
};

}  // namespace ninefold
