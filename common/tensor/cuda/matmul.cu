// Matrix products, those of rows in groups, one product a group, and those of 8-bit floats, which tensor cores take in
// one layout only.
#include "common/tensor/cuda/gpu_kernels.h"
#include "common/tensor/cuda/loops.h"
#include "common/tensor/grouped_products.h"

namespace ninefold::NINEFOLD_GPU {
namespace {

constexpr int64_t f8_unit = 16;  // of extents and addresses

// A tile of 32 x 32 bytes each block: rows are read and written whole, and turned in shared memory.
constexpr int64_t tile = 32;
constexpr unsigned tile_threads_y = 8;

__global__ void transpose_bytes(uint8_t* to, const uint8_t* from, int64_t rows, int64_t columns) {
  uint8_t* const turned = shared_memory();
  const int64_t row = blockIdx.y * tile, column = blockIdx.x * tile;
  for (int64_t i = threadIdx.y; i < tile && row + i < rows; i += blockDim.y) {
    if (column + threadIdx.x < columns) {
      turned[threadIdx.x * (tile + 1) + i] = from[(row + i) * columns + column + threadIdx.x];
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.y; i < tile && column + i < columns; i += blockDim.y) {
    if (row + threadIdx.x < rows) to[(column + i) * rows + row + threadIdx.x] = turned[i * (tile + 1) + threadIdx.x];
  }
}

Tensor transposed(Stream stream, const Tensor& x) {
  const MemoryScope scope(*x.device(), MemoryKind::workspace);
  const int64_t rows = x.dim(0), columns = x.dim(1);
  Tensor result = Tensor::empty(x.device(), {columns, rows}, x.dtype());
  const dim3 grid(static_cast<unsigned>(blocks_for(columns, tile)), static_cast<unsigned>(blocks_for(rows, tile)));
  launch(transpose_bytes, grid, dim3(static_cast<unsigned>(tile), tile_threads_y), tile * (tile + 1), stream,
         static_cast<uint8_t*>(result.raw()), static_cast<const uint8_t*>(x.raw()), rows, columns);
  return result;
}

bool is_in_units(const Tensor& x) {
  return x.dim(0) % f8_unit == 0 && x.dim(1) % f8_unit == 0 && reinterpret_cast<uintptr_t>(x.raw()) % f8_unit == 0;
}

}  // namespace

void GpuKernels::matmul(const Tensor& out, const Tensor& a, const Tensor& b, const ops::MatmulOptions& options) {
  products_.multiply(out, a, b, options);
}

bool GpuKernels::matmul_f8(const Tensor& out, const Tensor& a, const Tensor& b, float scale,
                           const ops::MatmulOptions& options) {
  const bool has_e4m3 = a.dtype() == Dtype::f8_e4m3 || b.dtype() == Dtype::f8_e4m3;
  if (!products_.has_f8() || !has_e4m3 || !is_in_units(a) || !is_in_units(b) || !is_in_units(out)) return false;
  products_.multiply(out, options.transpose_a ? transposed(stream_, a) : a,
                     options.transpose_b ? b : transposed(stream_, b),
                     {.transpose_b = true, .accumulate = options.accumulate}, scale);
  return true;
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
