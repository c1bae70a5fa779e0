// Results of NCCL calls as errors.
#pragma once

#include <nccl.h>

#include "common/base/check.h"

namespace ninefold::nccl {

// Throws Error with NCCL's own text and the caller's place unless `result` is success.
inline void check(ncclResult_t result, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (result == ncclSuccess) return;
  ninefold::detail::throw_error(fmt::format("NCCL: {} ({})", ncclGetErrorString(result), ncclGetLastError(nullptr)),
                                file, line);
}

inline void check(cudaError_t result, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (result == cudaSuccess) return;
  ninefold::detail::throw_error(fmt::format("CUDA: {}", cudaGetErrorString(result)), file, line);
}

}  // namespace ninefold::nccl
