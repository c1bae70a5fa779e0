// Matrix products, and those of rows in groups: one product a group.
#include "common/tensor/cuda/gpu_kernels.h"

namespace ninefold::NINEFOLD_GPU {

void GpuKernels::matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  products_.multiply(out, a, b, options);
}

void GpuKernels::grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                                const ops::MatmulOptions& options) {
  // One group's part of a tensor with a matrix for each, and its rows of one with rows in groups.
  const auto matrix = [](const Tensor& x, size_t group) {
    return x.slice(static_cast<int64_t>(group) * x.dim(1) * x.dim(2), {x.dim(1), x.dim(2)});
  };
  int64_t begin = 0;
  for (size_t group = 0; group < counts.size(); ++group) {
    const auto rows = [&](const Tensor& x) { return x.rows(begin, begin + counts[group]); };
    const Tensor target = options.transpose_a ? matrix(out, group) : rows(out);
    if (counts[group] > 0) {
      products_.multiply(target, rows(a), options.transpose_a ? rows(b) : matrix(b, group), options);
    } else if (options.transpose_a && !options.accumulate) {
      fill(target, 0);
    }
    begin += counts[group];
  }
}

}  // namespace ninefold::NINEFOLD_GPU
