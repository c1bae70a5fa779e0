// A NCCL and a CUDA runtime without a GPU, so that what is written for them runs where there is none. Streams are
// queues whose work is done when somebody asks how far it has come; what NCCL would carry, MPI carries. Operations of
// one communicator run in the order in which each rank was told of them, and joining those of two ranks in different
// orders hangs, as it would there.
#pragma once

#include "common/tensor/device.h"

namespace ninefold::fake_nccl {

// The addresses are in this device's memory as long as it lives; one that comes meanwhile, such as that of the serial
// model, does not count.
void use_memory_of(const DeviceHandle& device);
// The version that it claims to be, and whether all ranks claim to use one GPU.
void claim(int version, bool ranks_share_a_gpu);

// Collectives and messages that were carried so far.
int64_t operations();

}  // namespace ninefold::fake_nccl
