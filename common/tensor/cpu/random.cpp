// Values by global index: element i comes from word i % 4 of Philox's counter i / 4, whatever range is drawn.
#include <algorithm>
#include <numbers>

#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/cpu/loops.h"
#include "common/tensor/cpu/philox.h"

namespace ninefold {
namespace {

using simd::Doubles;
using simd::Floats;
using simd::HalfFloats;
using simd::Longs;
using simd::Words;
using Kind = ops::Distribution::Kind;

// The middle of each word's interval of (0, 1), apart for the even and the odd elements.
struct UnitInterval {
  Doubles even, odd;
};
UnitInterval unit_interval(Words words) {
  // 2^52 + word is a double whose low bits are the word.
  const auto to_unit = [](Longs word) {
    return (std::bit_cast<Doubles>(word | 0x4330000000000000) - 4503599627370495.5) * 0x1p-32;
  };
  const Longs pairs = std::bit_cast<Longs>(words);
  return {to_unit(pairs & 0xffffffff), to_unit((pairs >> 32) & 0xffffffff)};
}

Floats interleave(Doubles even, Doubles odd) {
  const HalfFloats a = __builtin_convertvector(even, HalfFloats), b = __builtin_convertvector(odd, HalfFloats);
  return [&]<int... lane>(std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(a, b, (lane / 2 + lane % 2 * (simd::lanes / 2))...);
  }
  (std::make_integer_sequence<int, simd::lanes>{});
}

Floats even_lanes_twice(Floats x) {
  return [&]<int... lane>(std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(x, x, (lane / 2 * 2)...);
  }
  (std::make_integer_sequence<int, simd::lanes>{});
}

// Uniform in (-1, 1).
Floats uniform(Words words) {
  const auto [even, odd] = unit_interval(words);
  return interleave(2.0 * even - 1.0, 2.0 * odd - 1.0);
}

// Standard normal: an even and an odd element share a radius and an angle (Box and Muller 1958).
Floats normal(Words words) {
  const auto [even, odd] = unit_interval(words);
  const Floats radius = simd::sqrt(-2.0f * simd::log(interleave(even, odd)));
  const auto [sine, cosine] = simd::sine_cosine(2.0 * std::numbers::pi * odd);
  return even_lanes_twice(radius) * interleave(cosine, sine);
}

// The values of the elements from 4 * first_group on.
template <typename Draw>
std::array<float, simd::philox_elements> draw_values(uint64_t first_group, uint64_t key, float mean, float width,
                                                     Draw draw) {
  const auto words = simd::philox_words(first_group, 0, 0, key);
  std::array<float, simd::philox_elements> values;
  for (size_t half = 0; half < words.size(); ++half) {
    simd::store(values.data() + half * simd::lanes, draw(words[half]) * width + mean);
  }
  return values;
}

}  // namespace

void CpuKernels::fill_random(const Tensor& x, const ops::Distribution& distribution, uint64_t key,
                             int64_t first_element) {
  const auto mean = static_cast<float>(distribution.mean), width = static_cast<float>(distribution.width);
  if (distribution.kind == Kind::constant) return fill(x, mean);
  const auto draw = distribution.kind == Kind::uniform ? uniform : normal;
  for_float_type(x.dtype(), [&](auto type) {
    auto* const target = x.data<decltype(type)>();
    // Groups of four begin at multiples of four: the first group may begin before the range.
    for (int64_t begin = -(first_element % 4); begin < x.size(); begin += simd::philox_elements) {
      const auto values = draw_values(static_cast<uint64_t>((first_element + begin) / 4), key, mean, width, draw);
      const int64_t from = std::max<int64_t>(begin, 0);
      const int64_t to = std::min<int64_t>(begin + simd::philox_elements, x.size());
      simd::for_each_vector(to - from, [&](int64_t i, auto in_use) {
        simd::store(target + from + i, simd::load(values.data() + (from - begin) + i, in_use), in_use);
      });
    }
  });
}

}  // namespace ninefold
