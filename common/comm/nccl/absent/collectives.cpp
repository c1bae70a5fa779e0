// In place of NCCL's collectives, where programs are built without CUDA or there is no NCCL.
#include "common/comm/collectives.h"

namespace ninefold {

CollectivesFactory nccl_collectives(CollectivesFactory) {
  require(false,
          "--collectives nccl needs programs that are built with CUDA and NCCL (cmake --preset cuda); choose ours, "
          "ordered or mpi");
  return {};
}

}  // namespace ninefold
