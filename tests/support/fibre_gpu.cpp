// In place of ninefold_cuda: `--device cuda` is a device of fibres, so that whole trainings run as on GPUs.
#include "common/tensor/cuda/fibres/fibre_device.h"
#include "tests/support/fake_nccl/fake_nccl.h"

namespace ninefold {

DeviceHandle make_cuda_device(int) {
  DeviceHandle device = make_fibre_device(FibreOrder::forward);
  fake_nccl::use_memory_of(device);
  return device;
}

}  // namespace ninefold
