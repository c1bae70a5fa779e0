// Interleaved 1F1B: every rank holds v short stages, rank + 0, p, 2p, …, and a micro-batch goes round v times. A rank
// works on p micro-batches on one stage, then on the same p on its next.
// (Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
// section 2.2)
//
//   bubble (p-1) / (v m + p-1) of the time; v times the messages of 1F1B     p ranks, m micro-batches, v stages a rank
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

// Throws UserError unless the micro-batches are a multiple of the ranks.
Schedule interleaved(int ranks, int micro_batches, int virtual_stages);

}  // namespace ninefold::pipeline
