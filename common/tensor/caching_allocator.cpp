#include "common/tensor/caching_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "common/base/check.h"

namespace ninefold {
namespace {

constexpr int64_t mebibyte = int64_t{1} << 20;
constexpr int64_t huge_page = 2 * mebibyte;
constexpr int64_t smallest_segment = 64 * mebibyte;
constexpr int64_t small_request = mebibyte;

}  // namespace

// Pages are taken when first touched.
std::byte* HostSegments::take(int64_t bytes) {
  const size_t mapped = static_cast<size_t>(bytes + huge_page);
  void* const raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(raw != MAP_FAILED, "no memory: the system refused {} MiB more; use a smaller model, batch or length",
          bytes / mebibyte);
  std::byte* const begin = static_cast<std::byte*>(raw);
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin) % huge_page);
  const int64_t before = past == 0 ? 0 : huge_page - past;
  if (before > 0) munmap(begin, static_cast<size_t>(before));
  if (before < huge_page) munmap(begin + before + bytes, static_cast<size_t>(huge_page - before));
  madvise(begin + before, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish: without it only speed is lost
  return begin + before;
}

void HostSegments::give_back(std::byte* segment, int64_t bytes) { munmap(segment, static_cast<size_t>(bytes)); }

CachingAllocator::~CachingAllocator() {
  for (const auto& [address, bytes] : segments_) source_->give_back(address, bytes);
}

CachingAllocator::Pool& CachingAllocator::pool_for(int64_t bytes) { return bytes < small_request ? small_ : large_; }

void* CachingAllocator::allocate(int64_t bytes) {
  expect(bytes > 0 && bytes % allocation_unit == 0, "an allocation of {} bytes is not a positive multiple of {}", bytes,
         allocation_unit);
  Pool& pool = pool_for(bytes);
  if (pool.free.lower_bound({bytes, nullptr}) == pool.free.end()) add_segment(pool, bytes);
  const auto best = pool.free.lower_bound({bytes, nullptr});
  const auto [free_bytes, address] = *best;
  pool.free.erase(best);
  Pool::Block& block = pool.blocks.at(address);
  block.bytes = bytes;
  block.is_free = false;
  if (free_bytes > bytes) add_free_block(pool, address + bytes, free_bytes - bytes, false);
  return address;
}

void CachingAllocator::deallocate(void* address, int64_t bytes) {
  Pool& pool = pool_for(bytes);
  const auto found = pool.blocks.find(static_cast<std::byte*>(address));
  expect(found != pool.blocks.end() && !found->second.is_free && found->second.bytes == bytes,
         "freed {} bytes that were not allocated", bytes);
  std::byte* start = found->first;
  found->second.is_free = true;
  pool.free.insert({bytes, start});
  join_with_next(pool, start);
  if (!found->second.starts_segment && std::prev(found)->second.is_free) join_with_next(pool, std::prev(found)->first);
}

void CachingAllocator::add_segment(Pool& pool, int64_t bytes) {
  const int64_t in_pages = (bytes + huge_page - 1) / huge_page * huge_page;
  const int64_t segment = std::max(smallest_segment, in_pages);
  std::byte* const address = source_->take(segment);
  segments_[address] = segment;
  reserved_ += segment;
  add_free_block(pool, address, segment, true);
}

void CachingAllocator::add_free_block(Pool& pool, std::byte* address, int64_t bytes, bool starts_segment) {
  pool.blocks[address] = {bytes, true, starts_segment};
  pool.free.insert({bytes, address});
}

void CachingAllocator::join_with_next(Pool& pool, std::byte* address) {
  const auto first = pool.blocks.find(address);
  const auto second = std::next(first);
  if (second == pool.blocks.end() || !second->second.is_free || second->second.starts_segment) return;
  pool.free.erase({first->second.bytes, first->first});
  pool.free.erase({second->second.bytes, second->first});
  first->second.bytes += second->second.bytes;
  pool.free.insert({first->second.bytes, first->first});
  pool.blocks.erase(second);
}

}  // namespace ninefold
