// A device without memory: the ledger counts what a program would allocate, and nothing is.
#include "common/tensor/device.h"
#include "common/tensor/meta/meta_kernels.h"

namespace ninefold {
namespace {

class NullAllocator final : public Allocator {
 public:
  void* allocate(int64_t) override { return nullptr; }
  void deallocate(void*, int64_t) override {}
  int64_t reserved() const override { return 0; }
};

}  // namespace

DeviceHandle make_meta_device() {
  return std::make_shared<Device>(DeviceType::meta, std::make_unique<NullAllocator>(), std::make_unique<MetaKernels>());
}

}  // namespace ninefold
