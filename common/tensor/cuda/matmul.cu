// Matrix products, and those of rows in groups: one product a group.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/grouped_products.h"

namespace ninefold::NINEFOLD_GPU {

void GpuKernels::matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  products_.multiply(out, a, b, options);
}

void GpuKernels::grouped_matmul(const Tensor& out, const Tensor& a, const Tensor& b, const std::vector<int64_t>& counts,
                                const ops::MatmulOptions& options) {
  for_each_group(
      out, a, b, counts, options,
      [&](const Tensor& target, const Tensor& left, const Tensor& right) {
        products_.multiply(target, left, right, options);
      },
      [this](const Tensor& x, float value) { fill(x, value); });
}

}  // namespace ninefold::NINEFOLD_GPU
