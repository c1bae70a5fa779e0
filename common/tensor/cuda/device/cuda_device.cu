#include "common/tensor/cuda/device/cuda_device.h"

#include "common/base/stopwatch.h"
#include "common/tensor/caching_allocator.h"
#include "common/tensor/cuda/gpu_kernels.h"

namespace ninefold {
namespace cuda {
namespace {

class CudaSegments final : public Segments {
 public:
  std::byte* take(int64_t bytes) override {
    void* segment = nullptr;
    const cudaError_t result = cudaMalloc(&segment, static_cast<size_t>(bytes));
    if (result == cudaErrorMemoryAllocation) cudaGetLastError();  // it has been told, and is forgotten
    require(result != cudaErrorMemoryAllocation,
            "no memory: the GPU refused {} MiB more; use a smaller model, batch or length", bytes >> 20);
    check(result);
    return static_cast<std::byte*>(segment);
  }
  void give_back(std::byte* segment, int64_t) override { cudaFree(segment); }
};

// Memory of the host that the GPU reads and writes by itself, without the host's help: pinned.
class PinnedSegments final : public Segments {
 public:
  std::byte* take(int64_t bytes) override {
    void* segment = nullptr;
    const cudaError_t result = cudaHostAlloc(&segment, static_cast<size_t>(bytes), cudaHostAllocPortable);
    if (result == cudaErrorMemoryAllocation) cudaGetLastError();
    require(result != cudaErrorMemoryAllocation,
            "no memory: the system refused to pin {} MiB more for the GPU; offload less, or use more ranks",
            bytes >> 20);
    check(result);
    return static_cast<std::byte*>(segment);
  }
  void give_back(std::byte* segment, int64_t) override { cudaFreeHost(segment); }
};

// A stream, and where its kernels leave what they find wrong: memory of the host that the GPU can write.
class CudaStream {
 public:
  explicit CudaStream(int index_) : index(index_) {
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    void* address = nullptr;
    check(cudaHostAlloc(&address, sizeof(Faults), cudaHostAllocMapped));
    faults = new (address) Faults;
  }
  ~CudaStream() {
    cudaStreamSynchronize(stream);
    cudaFreeHost(faults);
    cudaStreamDestroy(stream);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  int index;
  cudaStream_t stream = nullptr;
  Faults* faults = nullptr;
};

class CudaGraph final : public RecordedWork {
 public:
  CudaGraph(cudaGraph_t noted, cudaStream_t stream) : stream_(stream) {
    const cudaError_t result = cudaGraphInstantiate(&graph_, noted, 0);
    cudaGraphDestroy(noted);
    check(result);
  }
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void replay() override { check(cudaGraphLaunch(graph_, stream_)); }

 private:
  cudaGraphExec_t graph_ = nullptr;
  cudaStream_t stream_;
};

class CudaHostAccess final : public HostAccess {
 public:
  explicit CudaHostAccess(std::unique_ptr<CudaStream> stream) : stream_(std::move(stream)) {}

  void to_host(void* host, const void* device, int64_t bytes) override {
    check(cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_->stream));
    synchronize();
  }
  void from_host(void* device, const void* host, int64_t bytes) override {
    check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_->stream));
    wait();
  }
  void clear(void* device, int64_t bytes) override {
    cudaPointerAttributes memory;
    check(cudaPointerGetAttributes(&memory, device));
    if (memory.type == cudaMemoryTypeHost) {
      wait();
      return HostAccess::clear(device, bytes);
    }
    check(cudaMemsetAsync(device, 0, static_cast<size_t>(bytes), stream_->stream));
  }
  void synchronize() override {
    wait();
    throw_faults(*stream_->faults);
  }
  // Relaxed: what is told meanwhile may take memory from the driver.
  void begin_recording() override { check(cudaStreamBeginCapture(stream_->stream, cudaStreamCaptureModeRelaxed)); }
  std::unique_ptr<RecordedWork> end_recording() override {
    cudaGraph_t noted = nullptr;
    check(cudaStreamEndCapture(stream_->stream, &noted));
    return std::make_unique<CudaGraph>(noted, stream_->stream);
  }
  const CudaStream& stream() const { return *stream_; }

 private:
  // With nobody to help on meanwhile, asleep.
  void wait() const {
    if (!while_waiting) return check(cudaStreamSynchronize(stream_->stream));
    const Stopwatch stopwatch;
    cudaError_t result;
    while ((result = cudaStreamQuery(stream_->stream)) == cudaErrorNotReady) while_waiting(stopwatch.seconds());
    check(result);
  }

  std::unique_ptr<CudaStream> stream_;
};

const CudaStream& cuda_stream(Device& device) {
  const auto* const access = dynamic_cast<const CudaHostAccess*>(&device.host_access());
  expect(access != nullptr, "a device of type {} has no CUDA stream", name_of(device.type()));
  return access->stream();
}

}  // namespace
}  // namespace cuda

DeviceHandle make_cuda_device(int index) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  require(result == cudaSuccess, "--device cuda needs a GPU and its driver ({}); without them use --device cpu",
          cudaGetErrorString(result));
  expect(0 <= index && count > 0, "GPU {} of {}", index, count);
  index %= count;
  cuda::check(cudaSetDevice(index));
  auto stream = std::make_unique<cuda::CudaStream>(index);
  auto kernels = std::make_unique<cuda::GpuKernels>(stream->stream, stream->faults);
  const auto memory = std::make_shared<cuda::CudaSegments>();
  return std::make_shared<Device>(DeviceType::cuda, std::make_unique<CachingAllocator>(memory), std::move(kernels),
                                  std::make_unique<cuda::CudaHostAccess>(std::move(stream)),
                                  std::make_unique<CachingAllocator>(std::make_shared<cuda::PinnedSegments>()),
                                  std::make_unique<CachingAllocator>(memory));
}

cudaStream_t stream_of(Device& device) { return cuda::cuda_stream(device).stream; }

int index_of(Device& device) { return cuda::cuda_stream(device).index; }

}  // namespace ninefold
