// The device that a test of operations runs on: the cpu's unless the command line names another. The same tests run on
// every device there is.
#pragma once

#include <vector>

#include "common/tensor/device.h"

namespace ninefold {

// A new device of the kind that --device=NAME chose: cpu, cuda, or the GPU's kernels on the host as fibres_forward,
// fibres_reverse, fibres_shuffled.
DeviceHandle make_test_device();

// Whether that is a real GPU: cuBLASLt chooses another kernel for other alignments, and so other sums.
bool test_device_is_gpu();

// Whether that is a GPU's stand-in, for which large sizes take long.
bool test_device_is_slow();

// By how many elements tests shift their inputs: all of 1 … 15, or some of them.
std::vector<int64_t> test_shifts();

}  // namespace ninefold
