// What the collectives of this chapter are compared with: the MPI library's blocking calls.
#pragma once

#include <string>

#include "common/comm/group.h"

namespace ninefold::collectives {

// Makes the call and returns when it is complete; the group's transport is MPI's. False, and nothing happens, for
// reductions of bf16 and f16, which MPI does not know.
bool blocking_mpi(const Group& group, const Call& call);

// How Open MPI copies large messages from process to process on this machine, in one sentence: with CMA
// (process_vm_readv) the receiver reads the sender's memory, once; without, everything is copied twice through shared
// memory. All ranks call it.
std::string copy_mechanism(const Group& group);

}  // namespace ninefold::collectives
