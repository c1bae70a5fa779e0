// DualPipe: two pipelines against each other. Stage s is on rank s for the first half of the micro-batches, which enter
// at rank 0, and a copy of it on rank p-1-s for the second half, which enter at rank p-1; each direction fills the
// other's bubble. The gradients of the two copies are summed.
// (DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 3.2.1, and github.com/deepseek-ai/DualPipe)
//
//   p/2 - 1 times F idle, for F = I = W and at least 2p micro-batches; p + 1 live micro-batches; twice the parameters
//
// The report computes a forward and a backward of different directions at the same time, to hide their communication;
// in the table one follows the other. The weight gradients of a copy are added in the order of its micro-batches.
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

// Throws UserError unless ranks and micro-batches are even.
Schedule dual_pipe(int ranks, int micro_batches);

}  // namespace ninefold::pipeline
