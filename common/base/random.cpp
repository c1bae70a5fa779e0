#include "common/base/random.h"

#include <Random123/philox.h>

#include "common/base/check.h"

namespace ninefold {
namespace {

// Spreads every bit of the input over the whole output (Steele, Lea, Flood 2014).
uint64_t split_mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t hash_key(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  return split_mix(split_mix(seed) ^ hash);
}

uint64_t RandomStream::next() {
  const uint64_t half = counter_++ % 2;
  if (half == 1) return spare_;
  const uint64_t block = counter_ / 2;
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const r123::Philox4x32::ctr_type counter = {{low(block), high(block), low(stream_), high(stream_)}};
  const auto words = r123::Philox4x32()(counter, {{low(key_), high(key_)}});
  spare_ = (uint64_t{words[3]} << 32) | words[2];
  return (uint64_t{words[1]} << 32) | words[0];
}

uint64_t RandomStream::below(uint64_t bound) {
  expect(bound > 0, "a random number below 0");
  // Numbers from the last, incomplete run of `bound` values would make the small results likelier.
  const uint64_t incomplete = (0 - bound) % bound;
  uint64_t value = next();
  while (value < incomplete) value = next();
  return value % bound;
}

}  // namespace ninefold
