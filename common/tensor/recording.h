// A stretch of work that a device was told once and does again as often as it is asked: CUDA graphs. A GPU that is told
// a few hundred small kernels one by one waits for the host; a recording is one call.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "common/tensor/device.h"

namespace ninefold {

// What is repeated are kernels and copies with the arguments that they had: the same addresses, the same numbers.
// Whoever wants other data brings them into the same tensors first, and finds results in the same tensors. Tensors that
// were made and dropped within the recording have memory of their own, which no other tensor gets.
class Recording {
 public:
  // Runs `work`, of which the device does nothing yet. It must not read or write the device's memory from the host.
  // Throws UserError where the device records nothing.
  Recording(const DeviceHandle& device, const std::function<void()>& work);
  // Tells the device to do it. Whoever listens to after_kernel hears of each operation again.
  void replay() const;

 private:
  DeviceHandle device_;
  std::vector<KernelCost> costs_;
  std::unique_ptr<RecordedWork> recorded_;
};

}  // namespace ninefold
