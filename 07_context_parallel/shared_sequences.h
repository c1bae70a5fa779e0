// What routers of a mixture of experts need to know of sequences that ranks share: the choices of all rows.
#pragma once

#include "07_context_parallel/layout.h"
#include "common/comm/group.h"
#include "common/nn/routing.h"

namespace ninefold {

// forward: all_gather of i32
class SharedSequences : public WholeSequences {
 public:
  SharedSequences(const Group& group, const SequenceLayout& layout) : group_(group), layout_(layout) {}
  std::vector<int32_t> gather(const std::vector<int32_t>& own, int64_t width, int64_t rows) const override;
  std::vector<int32_t> own(const std::vector<int32_t>& whole, int64_t width, int64_t rows) const override;
  int ranks() const override { return group_.size(); }

 private:
  Group group_;
  SequenceLayout layout_;
};

}  // namespace ninefold
