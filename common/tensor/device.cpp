#include "common/tensor/device.h"

#include "common/base/check.h"
#include "common/tensor/kernels.h"

namespace ninefold {

std::string_view name_of(DeviceType type) {
  switch (type) {
    case DeviceType::cpu:
      return "cpu";
    case DeviceType::meta:
      return "meta";
    case DeviceType::cuda:
      return "cuda";
  }
  return "unknown";
}

Device::Device(DeviceType type, std::unique_ptr<Allocator> allocator, std::unique_ptr<Kernels> kernels,
               std::unique_ptr<HostAccess> host_access, std::unique_ptr<Allocator> host_allocator,
               std::unique_ptr<Allocator> recorded_allocator)
    : type_(type),
      allocator_(std::move(allocator)),
      host_allocator_(std::move(host_allocator)),
      recorded_allocator_(std::move(recorded_allocator)),
      kernels_(std::move(kernels)),
      host_access_(std::move(host_access)) {}

Device::~Device() = default;

void Device::decorate_kernels(const std::function<std::unique_ptr<Kernels>(std::unique_ptr<Kernels>)>& wrap) {
  kernels_ = wrap(std::move(kernels_));
  expect(kernels_ != nullptr, "the decorator of a device's kernels returned none");
}

}  // namespace ninefold
