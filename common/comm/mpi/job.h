// What World needs from MPI, without its header. Everything that includes <mpi.h> is in this folder.
#pragma once

#include <memory>

#include "common/comm/transport.h"

namespace ninefold::mpi {

// All ranks of the job. MPI has been initialised by `launch`.
std::unique_ptr<Transport> world_transport(bool synchronous_sends);

// Ends every rank of the job, at once, with this exit code.
[[noreturn]] void end_job(int exit_code);

}  // namespace ninefold::mpi
