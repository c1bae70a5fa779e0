// What common/comm/nccl uses of CUDA's runtime, for hosts without a GPU: see fake_nccl.h.
#pragma once

#include <cstddef>

enum cudaError_t { cudaSuccess, cudaErrorNotReady };
using cudaStream_t = struct FakeStream*;  // nullptr: the one in which kernels compute
using cudaEvent_t = struct FakeEvent*;
inline constexpr unsigned cudaEventDisableTiming = 2, cudaStreamNonBlocking = 1;

struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  cudaUUID_t uuid;
};

const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
