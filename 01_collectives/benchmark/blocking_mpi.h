// What the collectives of this chapter are compared with: the MPI library's blocking calls.
#pragma once

#include <functional>
#include <string>

#include "common/comm/group.h"

namespace ninefold::collectives {

// What makes the call and returns when it is complete, prepared so that nothing but MPI's own time is measured; empty
// for reductions of bf16 and f16, which MPI does not know, and in virtual time, which MPI does not keep. The group's
// transport is MPI's; group and tensors outlive it.
std::function<void()> blocking_mpi(const Group& group, const Call& call);

// How Open MPI copies large messages from process to process on this machine, in one sentence: with CMA
// (process_vm_readv) the receiver reads the sender's memory, once; without, everything is copied twice through shared
// memory. All ranks call it.
std::string copy_mechanism(const Group& group);

}  // namespace ninefold::collectives
