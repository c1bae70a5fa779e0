#include "common/base/check.h"
#include "common/tensor/caching_allocator.h"
#include "common/tensor/cpu/cpu_kernels.h"
#include "common/tensor/device.h"

namespace ninefold {

DeviceHandle make_cpu_device(int threads) {
  require(threads >= 1, "threads ({}) must be at least 1", threads);
  return std::make_shared<Device>(DeviceType::cpu, std::make_unique<CachingAllocator>(),
                                  std::make_unique<CpuKernels>(threads));
}

}  // namespace ninefold
