#include "03_zero_fsdp/layout.h"

#include <algorithm>
#include <numeric>

namespace ninefold {
namespace {

int64_t aligned(int64_t elements, int64_t alignment) { return (elements + alignment - 1) / alignment * alignment; }

}  // namespace

UnitLayout::UnitLayout(std::string unit_name, int unit_ranks, std::vector<int64_t> parameter_sizes)
    : name(std::move(unit_name)), ranks(unit_ranks), sizes(std::move(parameter_sizes)) {
  int64_t end = 0;
  for (const int64_t size : sizes) {
    offsets.push_back(end);
    end += aligned(size, flat_alignment);
  }
  padded = aligned(end, ranks * flat_alignment);
}

int64_t UnitLayout::padding() const { return padded - std::accumulate(sizes.begin(), sizes.end(), int64_t{0}); }

UnitLayout::Part UnitLayout::part(size_t index, int rank) const {
  const int64_t shard_begin = rank * shard();
  const int64_t begin = std::max(offsets[index], shard_begin);
  const int64_t end = std::min(offsets[index] + sizes[index], shard_begin + shard());
  if (begin >= end) return {0, 0, 0};
  return {begin - offsets[index], begin - shard_begin, end - begin};
}

}  // namespace ninefold
