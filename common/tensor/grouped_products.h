// The products that a grouped matmul consists of, one a group.
#pragma once

#include "common/tensor/ops.h"

namespace ninefold {

// Calls multiply(target, left, right) with each group's part of the tensors, read as `options` say, where the group has
// rows; where it has none, and its part of `out` is a whole matrix that is assigned, fill(target, 0).
template <typename Multiply, typename Fill>
void for_each_group(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                    const ops::MatmulOptions& options, const Multiply& multiply, const Fill& fill) {
  // One group's part of a tensor with a matrix for each, and its rows of one with rows in groups.
  const auto matrix = [](const Tensor& x, size_t group) {
    return x.slice(static_cast<int64_t>(group) * x.dim(1) * x.dim(2), {x.dim(1), x.dim(2)});
  };
  int64_t begin = 0;
  for (size_t group = 0; group < counts.size(); ++group) {
    const auto rows = [&](const Tensor& x) { return x.rows(begin, begin + counts[group]); };
    const Tensor target = options.transpose_a ? matrix(out, group) : rows(out);
    if (counts[group] > 0) {
      multiply(target, rows(a), options.transpose_a ? rows(b) : matrix(b, group));
    } else if (options.transpose_a && !options.accumulate) {
      fill(target, 0.0f);
    }
    begin += counts[group];
  }
}

}  // namespace ninefold
