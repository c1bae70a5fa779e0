// 1F1B: as soon as a rank can compute a backward it does, so that activations are freed early.
// (Narayanan et al. 2019, "PipeDream"; Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU
// Clusters Using Megatron-LM")
//
//   bubble (p-1) / (m+p-1) of the time as GPipe, min(p - rank, m) live micro-batches     p ranks, m micro-batches
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

Schedule one_f_one_b(int ranks, int micro_batches);

}  // namespace ninefold::pipeline
