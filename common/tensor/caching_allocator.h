// Keeps freed memory for the next tensor. A training step allocates the same sizes every time; going to the system for
// them costs a page fault for every 4 KiB touched, which measures as a sixth of a step.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "common/tensor/memory.h"

namespace ninefold {

// Where segments come from.
class Segments {
 public:
  virtual ~Segments() = default;
  // `bytes` is a multiple of 2 MiB, the address one of 64. Throws UserError when there is no more memory.
  virtual std::byte* take(int64_t bytes) = 0;
  virtual void give_back(std::byte* segment, int64_t bytes) = 0;
};

// The host's memory, in huge pages where the system has them.
class HostSegments final : public Segments {
 public:
  std::byte* take(int64_t bytes) override;
  void give_back(std::byte* segment, int64_t bytes) override;
};

// Best fit with splitting and coalescing, inside segments. Requests under 1 MiB live in segments of their own, so that
// they do not cut up the large ones. Segments go back when the allocator does. What is freed may be given out at once:
// a device does what it is told in order.
class CachingAllocator final : public Allocator {
 public:
  explicit CachingAllocator(std::shared_ptr<Segments> source = std::make_shared<HostSegments>())
      : source_(std::move(source)) {}
  ~CachingAllocator() override;
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  void* allocate(int64_t bytes) override;
  void deallocate(void* address, int64_t bytes) override;
  int64_t reserved() const override { return reserved_; }

 private:
  // One kind of segments: `blocks` cover them without gaps, `free` orders the free ones by size, then address.
  struct Pool {
    struct Block {
      int64_t bytes;
      bool is_free;
      bool starts_segment;
    };
    std::map<std::byte*, Block> blocks;
    std::set<std::pair<int64_t, std::byte*>> free;
  };

  Pool& pool_for(int64_t bytes);
  void add_segment(Pool& pool, int64_t bytes);
  static void add_free_block(Pool& pool, std::byte* address, int64_t bytes, bool starts_segment);
  // Joins the free block at `address` with the free block right behind it, if there is one in the same segment.
  static void join_with_next(Pool& pool, std::byte* address);

  std::shared_ptr<Segments> source_;
  Pool small_, large_;
  std::map<std::byte*, int64_t> segments_;
  int64_t reserved_ = 0;
};

}  // namespace ninefold
