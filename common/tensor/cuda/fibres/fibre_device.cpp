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
    const ProtectedMemory::Open open(context_->memory);
    HostAccess::clear(device, bytes);
  }
  void synchronize() override { throw_faults(context_->faults); }

 private:
  std::unique_ptr<FibreContext> context_;
};

}  // namespace

}  // namespace fibres

DeviceHandle make_fibre_device(FibreOrder order) {
  auto memory = std::make_unique<fibres::ProtectedMemory>();
  auto context = std::make_unique<fibres::FibreContext>(order, *memory);
  auto kernels = std::make_unique<fibres::GpuKernels>(&context->fibres, &context->faults);
  return std::make_shared<Device>(DeviceType::cuda, std::make_unique<CachingAllocator>(std::move(memory)),
                                  std::move(kernels), std::make_unique<fibres::FibreHostAccess>(std::move(context)),
                                  std::make_unique<CachingAllocator>());
}

}  // namespace ninefold
