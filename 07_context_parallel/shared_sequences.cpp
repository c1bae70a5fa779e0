#include "07_context_parallel/shared_sequences.h"

#include <algorithm>

#include "common/comm/world.h"

namespace ninefold {

std::vector<int32_t> SharedSequences::gather(const std::vector<int32_t>& own, int64_t width, int64_t rows) const {
  const DeviceHandle& device = group_.world().device();
  const auto size = static_cast<int64_t>(own.size());
  const MemoryScope scope(*device, MemoryKind::communication);
  const Tensor all = Tensor::empty(device, {group_.size() * size}, Dtype::i32);
  group_.labelled("choices").all_gather(all, Tensor::from(device, {size}, own));
  const std::vector<int32_t> by_ranks = all.to_vector<int32_t>();

  std::vector<int32_t> whole(by_ranks.size());
  const int64_t length = rows * group_.size();
  auto from = by_ranks.begin();
  for (int rank = 0; rank < group_.size(); ++rank) {
    const std::vector<int32_t> positions = layout_.positions(rank, length);
    for (int64_t sequence = 0; sequence < size / (rows * width); ++sequence) {
      for (const int32_t position : positions) {
        std::copy_n(from, width, whole.begin() + (sequence * length + position) * width);
        from += width;
      }
    }
  }
  return whole;
}

std::vector<int32_t> SharedSequences::own(const std::vector<int32_t>& whole, int64_t width, int64_t rows) const {
  const int64_t length = rows * group_.size(), sequences = static_cast<int64_t>(whole.size()) / (length * width);
  const std::vector<int32_t> positions = layout_.positions(group_.rank(), length);
  std::vector<int32_t> own;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    for (const int32_t position : positions) {
      const auto from = whole.begin() + (sequence * length + position) * width;
      own.insert(own.end(), from, from + width);
    }
  }
  return own;
}

}  // namespace ninefold
