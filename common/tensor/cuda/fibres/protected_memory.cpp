#include "common/tensor/cuda/fibres/protected_memory.h"

#include <sys/mman.h>

#include "common/base/check.h"

namespace ninefold::fibres {

std::byte* ProtectedMemory::take(int64_t bytes) {
  std::byte* const segment = source_.take(bytes);
  segments_[segment] = bytes;
  protect(openings_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  return segment;
}

void ProtectedMemory::give_back(std::byte* segment, int64_t bytes) {
  segments_.erase(segment);
  source_.give_back(segment, bytes);
}

void ProtectedMemory::protect(int rights) {
  for (const auto& [segment, bytes] : segments_) {
    expect(mprotect(segment, static_cast<size_t>(bytes), rights) == 0, "the system refused to protect memory");
  }
}

ProtectedMemory::Open::Open(ProtectedMemory& memory) : memory_(memory) {
  if (memory_.openings_++ == 0) memory_.protect(PROT_READ | PROT_WRITE);
}

ProtectedMemory::Open::~Open() {
  if (--memory_.openings_ == 0) memory_.protect(PROT_NONE);
}

}  // namespace ninefold::fibres
