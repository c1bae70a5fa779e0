// The memory ledger: every allocation of a device is booked under one kind, so that "where do the bytes go" has an
// exact answer, and a formula can be compared with it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace ninefold {

// `gathered` is what sharding holds whole for a moment: the parameters and gradients of the layers at work.
enum class MemoryKind { parameters, gradients, optimizer, activations, gathered, communication, workspace, host, data };
inline constexpr int memory_kinds = 9;

std::string_view name_of(MemoryKind kind);

// Allocators take and give back multiples of this many bytes: a cache line.
inline constexpr int64_t allocation_unit = 64;
constexpr int64_t rounded(int64_t bytes) { return (bytes + allocation_unit - 1) / allocation_unit * allocation_unit; }

// Bytes by kind.
using MemoryByKind = std::array<int64_t, memory_kinds>;

// Counts requested bytes, now and at their peak. What allocators round up shows in Allocator::reserved.
class Ledger {
 public:
  void allocated(MemoryKind kind, int64_t bytes);
  // Throws UserError where so many bytes more would pass the limit; what lies in the host does not count.
  void require_room(MemoryKind kind, int64_t bytes) const;
  // Most bytes at any time; 0: as many as there are.
  void set_limit(int64_t bytes) { limit_ = bytes; }
  void freed(MemoryKind kind, int64_t bytes);

  int64_t now(MemoryKind kind) const { return now_[static_cast<int>(kind)]; }
  int64_t peak(MemoryKind kind) const { return peak_[static_cast<int>(kind)]; }
  // Largest sum over all kinds, and what it was made of at that moment.
  int64_t peak_total() const { return peak_total_; }
  const MemoryByKind& at_peak() const { return at_peak_; }
  const MemoryByKind& now() const { return now_; }

  // Peaks start again from what is allocated now.
  void reset_peaks();

 private:
  int64_t total() const;
  MemoryByKind now_{}, peak_{}, at_peak_{};
  int64_t peak_total_ = 0;
  int64_t limit_ = 0;
};

// Where a device's memory comes from. Not thread-safe: one thread of a rank allocates.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // `bytes` is a positive multiple of 64. The address is aligned to 64 bytes; nullptr for devices without memory.
  virtual void* allocate(int64_t bytes) = 0;
  virtual void deallocate(void* address, int64_t bytes) = 0;
  // Bytes taken from the system, whether in use or cached.
  virtual int64_t reserved() const = 0;
};

// What a device has noted: kernels and copies with their arguments, which it does again each time.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void replay() = 0;
};

// How the host reaches a device; here, where its memory is the host's own.
class HostAccess {
 public:
  virtual ~HostAccess() = default;
  // Return when the bytes are there, after everything that the device was told before.
  virtual void to_host(void* host, const void* device, int64_t bytes);
  virtual void from_host(void* device, const void* host, int64_t bytes);
  virtual void clear(void* device, int64_t bytes);
  // Waits until the device has done everything that it was told. Throws what its kernels found wrong with their
  // arguments, as `to_host` does.
  virtual void synchronize() {}

  // From the one to the other the device notes what it is told, and does none of it; see Recording. Throws UserError
  // where it cannot.
  virtual void begin_recording();
  virtual std::unique_ptr<RecordedWork> end_recording();

  // Called again and again while the host waits for the device, with the seconds that it has waited so far.
  std::function<void(double)> while_waiting;
};

}  // namespace ninefold
