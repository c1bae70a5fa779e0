// In place of NCCL's collectives, where programs are built without CUDA or there is no NCCL.
#include "common/comm/collectives.h"

namespace ninefold {

// Refuses only when a world wants them: by then it is known whether there is a GPU at all.
CollectivesFactory nccl_collectives(CollectivesFactory) {
  return [](Transport&) -> std::unique_ptr<Collectives> {
    throw UserError(
        "--collectives nccl needs programs that are built with CUDA and NCCL (cmake --preset cuda); choose ours, "
        "ordered or mpi");
  };
}

}  // namespace ninefold
