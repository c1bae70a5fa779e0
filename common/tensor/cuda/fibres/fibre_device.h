// A device on the host that stands in for a GPU: the same kernels, with fibres as threads, and memory that only kernels
// and copies reach. For tests (library ninefold_fibres).
#pragma once

#include "common/tensor/device.h"

namespace ninefold {

// In which order the threads of a block, and the blocks, run between barriers.
enum class FibreOrder { forward, reverse, shuffled };

// A device of type cuda. Whatever touches its memory outside a kernel or a copy ends the process (SIGSEGV).
DeviceHandle make_fibre_device(FibreOrder order);

}  // namespace ninefold
