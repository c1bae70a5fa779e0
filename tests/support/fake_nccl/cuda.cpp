// The CUDA runtime of hosts without a GPU: streams and events.
#include "common/base/stopwatch.h"
#include "common/tensor/cuda/device/cuda_device.h"
#include "tests/support/fake_nccl/machine.h"

namespace ninefold {
namespace fake_nccl {

Machine& machine() {
  static Machine one;
  return one;
}

void Machine::poll() const {
  for (FakeStream* stream : streams) {
    while (!stream->tasks.empty() && stream->tasks.front()()) stream->tasks.pop_front();
  }
}

void use_memory_of(const DeviceHandle& device) {
  if (machine().device.expired()) machine().device = device;
}

void claim(int version, bool ranks_share_a_gpu) {
  machine().version = version;
  machine().is_shared = ranks_share_a_gpu;
}

int64_t operations() { return machine().operations; }

}  // namespace fake_nccl

cudaStream_t stream_of(Device&) { return nullptr; }

}  // namespace ninefold

using namespace ninefold;
using namespace ninefold::fake_nccl;

const char* cudaGetErrorString(cudaError_t) { return "an error of the fake CUDA"; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = std::make_unique<FakeEvent>().release();
  return cudaSuccess;
}
// Streams may still wait for it: it stays.
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->has_passed = event->is_of_kernels = stream == nullptr;  // kernels compute at once
  if (stream) {
    stream->tasks.push_back([event] { return event->has_passed = true; });
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  machine().poll();
  return event->has_passed ? cudaSuccess : cudaErrorNotReady;
}
// Kernels compute at once, so that whoever launches the next one waits here, as hosts wait for what kernels compute.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream) {
    stream->waits_for_kernels |= event->is_of_kernels;
    stream->tasks.push_back([event] { return event->has_passed; });
  } else {
    const Stopwatch stopwatch;
    const auto& while_waiting = machine().host_access().while_waiting;
    while (!event->has_passed) {
      machine().poll();
      if (while_waiting) while_waiting(stopwatch.seconds());
    }
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = std::make_unique<FakeStream>().release();
  machine().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  machine().streams.erase(stream);
  std::unique_ptr<FakeStream>(stream).reset();
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  properties->uuid.bytes[0] = machine().is_shared ? 1 : static_cast<char>(1 + job_rank());
  return cudaSuccess;
}
