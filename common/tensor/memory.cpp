#include "common/tensor/memory.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/base/check.h"
#include "common/base/report.h"

namespace ninefold {

std::string_view name_of(MemoryKind kind) {
  constexpr std::array<std::string_view, memory_kinds> names = {
      "parameters", "gradients", "optimizer", "activations", "gathered", "communication", "workspace", "host", "data"};
  return names[static_cast<size_t>(kind)];
}

int64_t Ledger::total() const { return std::accumulate(now_.begin(), now_.end(), int64_t{0}); }

void Ledger::require_room(MemoryKind kind, int64_t bytes) const {
  if (limit_ == 0 || kind == MemoryKind::host || total() - now(MemoryKind::host) + bytes <= limit_) return;
  std::string kinds;
  for (int i = 0; i < memory_kinds; ++i) {
    const auto of = static_cast<MemoryKind>(i);
    if (now(of) == 0 || of == MemoryKind::host) continue;
    kinds +=
        fmt::format("{}{} of {}", kinds.empty() ? "" : ", ", human_bytes(static_cast<double>(now(of))), name_of(of));
  }
  require(false,
          "this rank's memory limit of {} has no room for {} of {} beside {}; more ranks that share the work, "
          "smaller micro-batches or layers that run again need less, or allow more with --memory-limit",
          human_bytes(static_cast<double>(limit_)), human_bytes(static_cast<double>(bytes)), name_of(kind),
          kinds.empty() ? "nothing" : kinds);
}

void Ledger::allocated(MemoryKind kind, int64_t bytes) {
  const auto index = static_cast<size_t>(kind);
  now_[index] += bytes;
  peak_[index] = std::max(peak_[index], now_[index]);
  if (const int64_t sum = total(); sum > peak_total_) {
    peak_total_ = sum;
    at_peak_ = now_;
  }
}

void Ledger::freed(MemoryKind kind, int64_t bytes) {
  now_[static_cast<size_t>(kind)] -= bytes;
  expect(now(kind) >= 0, "more {} bytes freed than allocated", name_of(kind));
}

void Ledger::reset_peaks() {
  peak_ = at_peak_ = now_;
  peak_total_ = total();
}

void HostAccess::to_host(void* host, const void* device, int64_t bytes) {
  std::memcpy(host, device, static_cast<size_t>(bytes));
}

void HostAccess::begin_recording() { throw UserError("only GPUs record what they are told; use --device cuda"); }

std::unique_ptr<RecordedWork> HostAccess::end_recording() { return nullptr; }

void HostAccess::from_host(void* device, const void* host, int64_t bytes) {
  std::memcpy(device, host, static_cast<size_t>(bytes));
}

void HostAccess::clear(void* device, int64_t bytes) { std::memset(device, 0, static_cast<size_t>(bytes)); }

}  // namespace ninefold
