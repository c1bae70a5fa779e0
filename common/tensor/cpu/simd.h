// Vectors of f32 as wide as the processor's registers, on the vector extensions of GCC and clang: the same source is
// AVX-512, AVX2 or anything else. An element's result never depends on where it lies: the last, shorter vector of a
// range runs the same code on masked lanes, and exp, log and the rest are our own polynomials (after Moshier's Cephes).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/tensor/dtype.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ninefold::simd {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif
inline constexpr int lanes = vector_bytes / 4;  // 16, 8 or 4

using Floats = float __attribute__((vector_size(vector_bytes)));          // `lanes` of them
using Ints = int32_t __attribute__((vector_size(vector_bytes)));          // `lanes`
using Words = uint32_t __attribute__((vector_size(vector_bytes)));        // `lanes`
using Halves = uint16_t __attribute__((vector_size(vector_bytes / 2)));   // `lanes`
using Bytes = uint8_t __attribute__((vector_size(vector_bytes / 4)));     // `lanes`
using HalfFloats = float __attribute__((vector_size(vector_bytes / 2)));  // `lanes / 2`
using Doubles = double __attribute__((vector_size(vector_bytes)));        // `lanes / 2`
using Longs = int64_t __attribute__((vector_size(vector_bytes)));         // `lanes / 2`

// ---- ranges -------------------------------------------------------------------------------------------------------
// How many lanes of a vector are in use. Both forms compile to the same arithmetic; only loads and stores differ.
struct AllLanes {};
struct FirstLanes {
  int count;  // 1 .. lanes - 1
};

// Calls body(i, lanes_in_use) for the vectors that cover elements [0, n): i = 0, lanes, 2 * lanes, …
template <typename Body>
inline void for_each_vector(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, AllLanes{});
  if (i < n) body(i, FirstLanes{static_cast<int>(n - i)});
}

// ---- bits, selection ----------------------------------------------------------------------------------------------
inline Floats broadcast(float value) { return Floats{} + value; }
inline Words bits_of(Floats x) { return std::bit_cast<Words>(x); }
inline Floats from_bits(Words bits) { return std::bit_cast<Floats>(bits); }

// Lane-wise a < b ? a : b, so that a NaN in `b` wins: the argument that may be NaN comes second.
inline Floats minimum(Floats a, Floats b) { return a < b ? a : b; }
inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

// 0, 1, 2, …
inline Ints lane_index() {
  return []<int... lane>(std::integer_sequence<int, lane...>) { return Ints{lane...}; }
  (std::make_integer_sequence<int, lanes>{});
}

// Lanes in use keep x, the others get `other`.
inline Floats keep(Floats x, AllLanes, float) { return x; }
inline Floats keep(Floats x, FirstLanes in_use, float other) {
  return lane_index() < in_use.count ? x : broadcast(other);
}

// ---- loads and stores ---------------------------------------------------------------------------------------------
// Unaligned. Lanes that are not in use read as zero and are not written.
template <typename Vector, typename T>
inline Vector load_raw(const T* source, AllLanes = {}) {
  static_assert(sizeof(Vector) == lanes * sizeof(T));
  Vector x;
  std::memcpy(&x, source, sizeof x);
  return x;
}
template <typename Vector, typename T>
inline Vector load_raw(const T* source, FirstLanes in_use) {
  static_assert(sizeof(Vector) == lanes * sizeof(T));
  Vector x{};
  std::memcpy(&x, source, static_cast<size_t>(in_use.count) * sizeof(T));
  return x;
}
template <typename T, typename Vector>
inline void store_raw(T* target, Vector x, AllLanes = {}) {
  static_assert(sizeof(Vector) == lanes * sizeof(T));
  std::memcpy(static_cast<void*>(target), &x, sizeof x);
}
template <typename T, typename Vector>
inline void store_raw(T* target, Vector x, FirstLanes in_use) {
  static_assert(sizeof(Vector) == lanes * sizeof(T));
  std::memcpy(static_cast<void*>(target), &x, static_cast<size_t>(in_use.count) * sizeof(T));
}

// Storage types of 16 and 8 bits, and `lanes` of their elements.
template <typename T>
concept Narrow =
    std::is_same_v<T, bf16> || std::is_same_v<T, f16> || std::is_same_v<T, f8_e4m3> || std::is_same_v<T, f8_e5m2>;
template <Narrow T>
using Packed = std::conditional_t<sizeof(T) == 2, Halves, Bytes>;

template <typename T>
inline Floats widen(Packed<T> bits) {
  const Halves halves = __builtin_convertvector(bits, Halves);  // g++ 12 takes bytes to words one by one
  return T::template decoded<Floats>(__builtin_convertvector(halves, Words));
}
// A zero below each: one shuffle, where converting and shifting take five instructions.
template <>
inline Floats widen<bf16>(Halves bits) {
  return [bits]<int... half>(std::integer_sequence<int, half...>) {
    return std::bit_cast<Floats>(__builtin_shufflevector(Halves{}, bits, (half % 2 == 0 ? 0 : lanes + half / 2)...));
  }
  (std::make_integer_sequence<int, 2 * lanes>{});
}

// As the scalar type does it, to the bit.
template <typename T>
inline Packed<T> narrow(Floats x) {
  return __builtin_convertvector(T::template encoded<Words>(x), Packed<T>);
}
#if defined(__AVX512BF16__)
template <>
inline Halves narrow<bf16>(Floats x) {
  return std::bit_cast<Halves>(_mm512_cvtneps_pbh(std::bit_cast<__m512>(x)));
}
#else
template <>
inline Halves narrow<bf16>(Floats x) {
  const Words subnormal = std::bit_cast<Words>((bits_of(x) & 0x7fffffffu) < 0x00800000u);
  const Words word = bits_of(x) & (~subnormal | 0x80000000u);
  const Words rounded_up = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  const Words quiet_nan = (word >> 16) | 0x40u;
  return __builtin_convertvector(x == x ? rounded_up : quiet_nan, Halves);
}
#endif
#if defined(__AVX512F__)
// Masked, with all lanes in use: g++ 12 takes the plain forms' output for uninitialised.
template <>
inline Floats widen<f16>(Halves bits) {
  return std::bit_cast<Floats>(_mm512_maskz_cvtph_ps(0xffff, std::bit_cast<__m256i>(bits)));
}
template <>
inline Halves narrow<f16>(Floats x) {
  return std::bit_cast<Halves>(_mm512_maskz_cvtps_ph(0xffff, std::bit_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__AVX2__) && defined(__F16C__)
template <>
inline Floats widen<f16>(Halves bits) {
  return std::bit_cast<Floats>(_mm256_cvtph_ps(std::bit_cast<__m128i>(bits)));
}
template <>
inline Halves narrow<f16>(Floats x) {
  return std::bit_cast<Halves>(_mm256_cvtps_ph(std::bit_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT));
}
#endif

// f32 values from any float storage.
template <typename InUse = AllLanes>
inline Floats load(const float* source, InUse in_use = {}) {
  return load_raw<Floats>(source, in_use);
}
template <Narrow T, typename InUse = AllLanes>
inline Floats load(const T* source, InUse in_use = {}) {
  return widen<T>(load_raw<Packed<T>>(source, in_use));
}
template <typename InUse = AllLanes>
inline void store(float* target, Floats x, InUse in_use = {}) {
  store_raw(target, x, in_use);
}
template <Narrow T, typename InUse = AllLanes>
inline void store(T* target, Floats x, InUse in_use = {}) {
  store_raw(target, narrow<T>(x), in_use);
}
// `lanes / 2` values.
inline Doubles load_doubles(const double* source) {
  Doubles x;
  std::memcpy(&x, source, sizeof x);
  return x;
}
// Stores x and returns the value that a load would now give.
template <typename T, typename InUse = AllLanes>
inline Floats store_rounded(T* target, Floats x, InUse in_use = {}) {
  if constexpr (Narrow<T>) {
    const Packed<T> packed = narrow<T>(x);
    store_raw(target, packed, in_use);
    return widen<T>(packed);
  } else {
    store_raw(target, x, in_use);
    return x;
  }
}
// The value that storing as T and loading again gives.
template <typename T>
inline Floats rounded_to(Floats x) {
  if constexpr (Narrow<T>) return widen<T>(narrow<T>(x));
  return x;
}

// ---- across lanes, always in the same order -----------------------------------------------------------------------
// Lane i of the result is lane (i + distance) % lanes of x.
template <int distance>
inline Floats rotate(Floats x) {
  return [x]<int... lane>(std::integer_sequence<int, lane...>) {
    return __builtin_shufflevector(x, x, ((lane + distance) % lanes)...);
  }
  (std::make_integer_sequence<int, lanes>{});
}
template <int distance = lanes / 2>
inline float horizontal_sum(Floats x) {
  x += rotate<distance>(x);
  if constexpr (distance == 1)
    return x[0];
  else
    return horizontal_sum<distance / 2>(x);
}
template <int distance = lanes / 2>
inline float horizontal_max(Floats x) {
  x = maximum(rotate<distance>(x), x);
  if constexpr (distance == 1)
    return x[0];
  else
    return horizontal_max<distance / 2>(x);
}

// The sum of term(i, lanes_in_use), vectors for elements [i, i + lanes), over all of [0, n); lanes that are not in use
// must be zero. Four running sums hide the latency of adding; the order depends on n alone.
template <typename Term>
inline float sum_over_vectors(int64_t n, Term&& term) {
  Floats sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    for (int part = 0; part < 4; ++part) sums[part] += term(i + part * lanes, AllLanes{});
  }
  for (; i + lanes <= n; i += lanes) sums[0] += term(i, AllLanes{});
  if (i < n) sums[1] += term(i, FirstLanes{static_cast<int>(n - i)});
  return horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Lanes [0, lanes / 2) and [lanes / 2, lanes) in f64, and back, rounded.
struct Split {
  HalfFloats lower, upper;
};
inline Doubles lower_doubles(Floats x) { return __builtin_convertvector(std::bit_cast<Split>(x).lower, Doubles); }
inline Doubles upper_doubles(Floats x) { return __builtin_convertvector(std::bit_cast<Split>(x).upper, Doubles); }
inline Floats join(Doubles lower, Doubles upper) {
  return std::bit_cast<Floats>(
      Split{__builtin_convertvector(lower, HalfFloats), __builtin_convertvector(upper, HalfFloats)});
}

// ---- functions ----------------------------------------------------------------------------------------------------
// e^x within 2 ulp. exp(-inf) = 0, overflow gives inf, results below the smallest normal number are 0, NaN stays NaN.
inline Floats exp(Floats x) {
  const float infinity = std::numeric_limits<float>::infinity();
  // x = n ln 2 + r. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Floats shift = broadcast(12582912.0f);
  const Floats shifted = x * 1.44269504088896341f + shift;
  const Floats n = shifted - shift;
  Floats r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Times 2^n: n added to the exponent, right for all results that are normal numbers.
  Floats y = from_bits(bits_of(p) + (bits_of(shifted) << 23));
  y = x < -87.33654f ? broadcast(0) : y;
  return x <= 88.72283f ? y : x * infinity;
}

// Natural logarithm within 2 ulp. log(0) = -inf, log of a negative number is NaN, log(inf) = inf, NaN stays NaN.
inline Floats log(Floats x) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Ints subnormal = x < std::numeric_limits<float>::min();
  const Floats scaled = subnormal ? x * 8388608.0f : x;
  // scaled = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)).
  const Words offset = bits_of(scaled) - 0x3f3504f3u;
  const Ints exponent = (std::bit_cast<Ints>(offset) >> 23) - (subnormal & 23);
  const Floats e = __builtin_convertvector(exponent, Floats);
  const Floats m = from_bits((offset & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  Floats p = m * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Floats square = m * m;
  Floats y = p * (m * square) - e * 2.12194440e-4f;
  y = y - square * 0.5f;
  y = (m + y) + e * 0.693359375f;
  const Floats not_a_number = broadcast(std::numeric_limits<float>::quiet_NaN());
  y = x == 0.0f ? broadcast(-infinity) : y;
  y = x < infinity ? y : x;
  return x < 0.0f ? not_a_number : y;
}

// Correctly rounded. (One instruction under -fno-math-errno.)
inline Floats sqrt(Floats x) {
  for (int i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

// Sine and cosine in f64, right to a few ulp for |x| up to 1e8.
struct SineCosine {
  Doubles sine, cosine;
};
inline SineCosine sine_cosine(Doubles x) {
  // x = n pi / 2 + r. Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
  const Doubles shift = Doubles{} + 6755399441055744.0;
  const Doubles shifted = x * 0.63661977236758134308 + shift;
  const Doubles n = shifted - shift;
  Doubles r = x - n * 1.57079632673412561417e+00;  // the first 33 bits of pi / 2
  r = r - n * 6.07710050630396597660e-11;          // the next 33
  r = r - n * 2.02226624879595063154e-21;
  const Doubles z = r * r;
  Doubles s = z * 1.58962301576546568060e-10 - 2.50507477628578072866e-8;
  s = s * z + 2.75573136213857245213e-6;
  s = s * z - 1.98412698295895385996e-4;
  s = s * z + 8.33333333332211858878e-3;
  s = s * z - 1.66666666666666307295e-1;
  const Doubles sine = r + r * z * s;
  Doubles c = z * -1.13585365213876817300e-11 + 2.08757008419747316778e-9;
  c = c * z - 2.75573141792967388112e-7;
  c = c * z + 2.48015872888517045348e-5;
  c = c * z - 1.38888888888730564116e-3;
  c = c * z + 4.16666666666665929218e-2;
  const Doubles cosine = 1.0 - 0.5 * z + z * z * c;
  const Longs quadrant = std::bit_cast<Longs>(shifted);
  const Longs swapped = -(quadrant & 1);  // all bits where sine and cosine change places
  const Longs sine_sign = (quadrant & 2) << 62, cosine_sign = ((quadrant + 1) & 2) << 62;
  const Longs sine_bits = std::bit_cast<Longs>(sine), cosine_bits = std::bit_cast<Longs>(cosine);
  return {std::bit_cast<Doubles>(((sine_bits & ~swapped) | (cosine_bits & swapped)) ^ sine_sign),
          std::bit_cast<Doubles>(((cosine_bits & ~swapped) | (sine_bits & swapped)) ^ cosine_sign)};
}

// 1 / (1 + e^-x).
inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace ninefold::simd
