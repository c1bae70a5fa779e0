// What stands in for CUDA where the programs were built without it.
#include "common/base/check.h"
#include "common/tensor/device.h"

namespace ninefold {

DeviceHandle make_cuda_device(int) {
  throw UserError(
      "these programs were built without CUDA: build them with `cmake --preset cuda`, which needs NVIDIA's toolkit, or "
      "use --device cpu");
}

}  // namespace ninefold
