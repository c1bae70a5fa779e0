#include "common/tensor/cuda/fibres/fibre_device.h"

#include <utility>

#include "common/tensor/cuda/fibres/protected_memory.h"
#include "common/tensor/cuda/gpu_kernels.h"

namespace ninefold {
namespace fibres {
namespace {

// Everything that kernels need, which the kernels and the copies of a device share.
struct FibreContext {
  FibreContext(FibreOrder order, ProtectedMemory& memory_) : memory(memory_), fibres(order, memory_) {}
  ProtectedMemory& memory;
  Fibres fibres;
  Faults faults;
};

// As a CUDA graph: the arguments that were noted, whatever has happened since.
class FibreRecording final : public RecordedWork {
 public:
  explicit FibreRecording(std::vector<std::function<void()>> notes) : notes_(std::move(notes)) {}
  void replay() override {
    for (const std::function<void()>& work : notes_) work();
  }

 private:
  std::vector<std::function<void()>> notes_;
};

class FibreHostAccess final : public HostAccess {
 public:
  explicit FibreHostAccess(std::unique_ptr<FibreContext> context) : context_(std::move(context)) {}

  void to_host(void* host, const void* device, int64_t bytes) override {
    synchronize();
    const ProtectedMemory::Open open(context_->memory);
    HostAccess::to_host(host, device, bytes);
  }
  void from_host(void* device, const void* host, int64_t bytes) override {
    const ProtectedMemory::Open open(context_->memory);
    HostAccess::from_host(device, host, bytes);
  }
  void clear(void* device, int64_t bytes) override {
    context_->fibres.tell([=, this] {
      const ProtectedMemory::Open open(context_->memory);
      HostAccess::clear(device, bytes);
    });
  }
  void synchronize() override {
    expect(!context_->fibres.notes, "the host waits for a device that records what it is told");
    throw_faults(context_->faults);
  }
  void begin_recording() override { context_->fibres.notes = &notes_; }
  std::unique_ptr<RecordedWork> end_recording() override {
    context_->fibres.notes = nullptr;
    return std::make_unique<FibreRecording>(std::exchange(notes_, {}));
  }

 private:
  std::unique_ptr<FibreContext> context_;
  std::vector<std::function<void()>> notes_;
};

}  // namespace

}  // namespace fibres

DeviceHandle make_fibre_device(FibreOrder order) {
  const auto memory = std::make_shared<fibres::ProtectedMemory>();
  auto context = std::make_unique<fibres::FibreContext>(order, *memory);
  auto kernels = std::make_unique<fibres::GpuKernels>(&context->fibres, &context->faults);
  return std::make_shared<Device>(DeviceType::cuda, std::make_unique<CachingAllocator>(memory), std::move(kernels),
                                  std::make_unique<fibres::FibreHostAccess>(std::move(context)),
                                  std::make_unique<CachingAllocator>(), std::make_unique<CachingAllocator>(memory));
}

}  // namespace ninefold
