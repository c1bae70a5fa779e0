// What communication needs to know of a GPU beside its tensors.
#pragma once

#include <cuda_runtime.h>

#include "common/tensor/device.h"

namespace ninefold {

// What the device's operations run on, in order; another stream that reads or writes its tensors waits for an event
// of this one first, and this one for an event of the other before the tensors' memory is used again. The device must
// be one of make_cuda_device.
cudaStream_t stream_of(Device& device);
// The number that make_cuda_device was given.
int index_of(Device& device);

}  // namespace ninefold
