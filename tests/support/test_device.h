// The device that a test of operations runs on: the cpu's unless the command line names another. The same tests run on
// every device there is.
#pragma once

#include "common/tensor/device.h"

namespace ninefold {

// A new device of the kind that --device=NAME chose: cpu, cuda, or the GPU's kernels on the host as fibres_forward,
// fibres_reverse, fibres_shuffled.
DeviceHandle make_test_device();

}  // namespace ninefold
