#include "common/tensor/recording.h"

#include <exception>
#include <utility>

namespace ninefold {

Recording::Recording(const DeviceHandle& device, const std::function<void()>& work) : device_(device) {
  device->host_access().begin_recording();
  device->is_recording_ = true;
  auto listener = std::exchange(device->after_kernel, [this](const KernelCost& cost) { costs_.push_back(cost); });
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  device->after_kernel = std::move(listener);
  device->is_recording_ = false;
  recorded_ = device->host_access().end_recording();
  if (error) std::rethrow_exception(error);
}

void Recording::replay() const {
  recorded_->replay();
  if (!device_->after_kernel) return;
  for (const KernelCost& cost : costs_) device_->after_kernel(cost);
}

}  // namespace ninefold
