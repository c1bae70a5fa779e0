#include "common/tensor/memory.h"

#include <algorithm>
#include <numeric>

#include "common/base/check.h"

namespace ninefold {

std::string_view name_of(MemoryKind kind) {
  constexpr std::array<std::string_view, memory_kinds> names = {
      "parameters", "gradients", "optimizer", "activations", "gathered", "communication", "workspace", "host", "data"};
  return names[static_cast<size_t>(kind)];
}

int64_t Ledger::total() const { return std::accumulate(now_.begin(), now_.end(), int64_t{0}); }

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

}  // namespace ninefold
