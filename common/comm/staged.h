// Communication of tensors that the host does not reach, by way of the host's memory.
#pragma once

#include "common/comm/collectives.h"

namespace ninefold {

// What `inner` makes, for tensors of a GPU too, in groups whose collectives do not take those themselves: what a rank
// contributes is copied to the host's memory when a call starts, the call is made there, and its last step copies the
// result back. The copies on the host are booked under communication, in the ledger of the GPU, in the
// allocator's multiples.
CollectivesFactory staged(CollectivesFactory inner);

}  // namespace ninefold
