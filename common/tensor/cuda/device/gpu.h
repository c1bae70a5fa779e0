// What kernels are written with, here CUDA's own. The folder fibres/ has a file of the same name with the same
// functions for the host; CMake's include path chooses.
#pragma once

#include <cuda_runtime.h>

#include "common/base/check.h"

// The namespace of everything that is compiled for both, so that one program may hold both.
#define NINEFOLD_GPU cuda
#define NINEFOLD_UNROLL _Pragma("unroll")  // the loop that follows: its arrays become registers

namespace ninefold::cuda {

// Throws Error with CUDA's own words.
inline void check(cudaError_t result) { expect(result == cudaSuccess, "CUDA: {}", cudaGetErrorString(result)); }

// What a device's kernels run on, one after the other.
using Stream = cudaStream_t;

// Runs a kernel with `shared_bytes` of shared memory a block.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
            Arguments... arguments) {
  if (grid.x * grid.y * grid.z == 0) return;
  if (shared_bytes > 48 * 1024) {  // as much as every GPU gives without being asked
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError());
}

// Copies within the device. The ranges may be the same, but not overlap otherwise.
inline void move_bytes(Stream stream, void* to, const void* from, int64_t bytes) {
  if (to == from) return;
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream));
}

// The block's shared memory. Its contents are unspecified when a block begins.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}

}  // namespace ninefold::cuda
