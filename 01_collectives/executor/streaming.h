// Stores that go around the cache. A line that another core has read is shared; an ordinary store first has to take it
// back from that core, which is several times slower than writing to memory at once. (Intel 64 and IA-32 Architectures
// Optimization Reference Manual, "Non-temporal stores")
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/tensor/cpu/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace ninefold::collectives {

// Below this many bytes it does not matter.
inline constexpr int64_t worth_streaming = 8192;

// `target` is aligned to the size of the vector. Without special instructions an ordinary store.
template <typename Vector>
inline void stream_raw(void* target, Vector x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Vector) == 64) return _mm512_stream_si512(static_cast<__m512i*>(target), std::bit_cast<__m512i>(x));
#endif
#if defined(__AVX__)
  if constexpr (sizeof(Vector) == 32) return _mm256_stream_si256(static_cast<__m256i*>(target), std::bit_cast<__m256i>(x));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(Vector) == 16) return _mm_stream_si128(static_cast<__m128i*>(target), std::bit_cast<__m128i>(x));
#endif
  std::memcpy(target, &x, sizeof x);
}

// To be called between streaming stores and telling another process that the data are there.
inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// memcpy with streaming stores.
void copy_streaming(void* target, const void* source, int64_t bytes);

}  // namespace ninefold::collectives
