// Streams of a GPU, and the events by which one waits for another while the host goes on.
#pragma once

#include "common/comm/nccl/check.h"

namespace ninefold::nccl {

// A moment in the course of a stream.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // The moment at which `stream` will have done all that it has been told by now.
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream)); }
  bool has_passed() const {
    const cudaError_t result = cudaEventQuery(event_);
    if (result == cudaErrorNotReady) return false;
    check(result);
    return true;
  }
  // What `stream` is told from now on happens after it.
  void delay(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0)); }

 private:
  cudaEvent_t event_;
};

// One more queue of the GPU, beside the one in which kernels compute. Of higher priority: what is to be sent is short,
// and others wait for it.
class Stream {
 public:
  Stream() {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest));
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_;
};

}  // namespace ninefold::nccl
