// What the kernels share: loops over elements and rows, and sums in an order that never changes.
#pragma once

#include <gpu.h>  // of device/ or of fibres/

#include <algorithm>

#include "common/tensor/storage_type.h"

namespace ninefold::NINEFOLD_GPU {

inline constexpr unsigned block_threads = 256;
inline constexpr unsigned warp_threads = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;
inline constexpr int64_t most_blocks = 4096;  // of kernels that take several elements a thread

inline constexpr int64_t blocks_for(int64_t count, int64_t each) { return (count + each - 1) / each; }

// nullptr of an absent tensor.
template <typename T>
T* address_or_null(const Tensor& x) {
  return x.defined() ? x.address<T>() : nullptr;
}

// ---- elements -------------------------------------------------------------------------------------------------------

template <typename Body>
__global__ void run_for_each(int64_t n, Body body) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) body(i);
}

// Calls body(i) on the device for every i < n.
template <typename Body>
void for_each(Stream stream, int64_t n, Body body) {
  const int64_t blocks = std::min(blocks_for(n, block_threads), most_blocks);
  launch(run_for_each<Body>, dim3(static_cast<unsigned>(blocks)), dim3(block_threads), 0, stream, n, body);
}

// ---- rows: one block each -------------------------------------------------------------------------------------------

template <typename Body>
__global__ void run_for_each_row(int64_t rows, Body body) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) body(row);
}

// Calls body(row) in every thread of a block of `threads` for each row. Shared memory has room for `reduce_block`, or
// for a byte a thread.
template <typename Body>
void for_each_row(Stream stream, int64_t rows, Body body, unsigned threads = block_threads) {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(rows, 1 << 20));
  launch(run_for_each_row<Body>, dim3(blocks), dim3(threads), block_threads, stream, rows, body);
}

// ---- sums -----------------------------------------------------------------------------------------------------------

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Every lane gets the whole. The order is that of a tree, the same each time.
template <typename T, typename Join>
__device__ T reduce_warp(T value, Join join) {
  for (int mask = warp_threads / 2; mask > 0; mask /= 2) value = join(value, __shfl_xor_sync(all_lanes, value, mask));
  return value;
}

// Every thread of a block of whole warps gets the whole. `nothing` is what changes no other value. The shared memory of
// `for_each_row` is used, and free again after it.
template <typename T, typename Join>
__device__ T reduce_block(T value, T nothing, Join join) {
  T* const parts = reinterpret_cast<T*>(shared_memory());
  const unsigned lane = threadIdx.x % warp_threads;
  value = reduce_warp(value, join);
  if (lane == 0) parts[threadIdx.x / warp_threads] = value;
  __syncthreads();
  value = reduce_warp(lane < blockDim.x / warp_threads ? parts[lane] : nothing, join);
  __syncthreads();
  return value;
}

template <typename T>
__device__ T sum_over_block(T value) {
  return reduce_block(value, T(0), Sum());
}

// ---- sums over the rows of a matrix
// -----------------------------------------------------------------------------------

inline constexpr int64_t most_chunks = 256;

// partial[chunk, column] = the sum of value(row, column) over the rows of the chunk that this block has.
template <typename Value>
__global__ void sum_columns_of_chunk(float* partial, int64_t rows, int64_t columns, int64_t chunk_rows, Value value) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t first = blockIdx.y * chunk_rows;
  if (column >= columns) return;
  float sum = 0;
  for (int64_t row = first; row < first + chunk_rows && row < rows; ++row) sum += value(row, column);
  partial[blockIdx.y * columns + column] = sum;
}

template <typename T>
struct AddChunks {
  T* target;
  const float* partial;
  int64_t chunks, columns;
  __device__ void operator()(int64_t column) const {
    float sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * columns + column];
    target[column] = T(static_cast<float>(target[column]) + sum);
  }
};

// target[column] += the sum of value(row, column) over all rows, in f32.
template <typename T, typename Value>
void add_column_sums(Stream stream, const DeviceHandle& device, T* target, int64_t rows, int64_t columns, Value value) {
  if (rows == 0 || columns == 0) return;
  const int64_t chunk_rows = std::max<int64_t>(blocks_for(rows, most_chunks), 32);
  const int64_t chunks = blocks_for(rows, chunk_rows);
  const Tensor partial = workspace(device, chunks * columns);
  const dim3 grid(static_cast<unsigned>(blocks_for(columns, block_threads)), static_cast<unsigned>(chunks));
  launch(sum_columns_of_chunk<Value>, grid, dim3(block_threads), 0, stream, partial.address<float>(), rows, columns,
         chunk_rows, value);
  for_each(stream, columns, AddChunks<T>{target, partial.address<float>(), chunks, columns});
}

}  // namespace ninefold::NINEFOLD_GPU
