#include "01_collectives/executor/streaming.h"

#include <algorithm>

namespace ninefold::collectives {

void copy_streaming(void* target, const void* source, int64_t bytes) {
  auto* to = static_cast<std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(source);
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % sizeof(simd::Floats));
  const int64_t head = past == 0 ? 0 : std::min<int64_t>(sizeof(simd::Floats) - past, bytes);
  std::memcpy(to, from, static_cast<size_t>(head));
  int64_t i = head;
  for (; i + static_cast<int64_t>(sizeof(simd::Floats)) <= bytes; i += sizeof(simd::Floats)) {
    simd::Floats x;
    std::memcpy(&x, from + i, sizeof x);
    stream_raw(to + i, x);
  }
  std::memcpy(to + i, from + i, static_cast<size_t>(bytes - i));
  finish_streaming();
}

}  // namespace ninefold::collectives
