// ZB-V: every rank holds two stages, one on the way down and one on the way back, so that the rank that begins a
// micro-batch also ends it and can begin its backward at once.
// (Qi, Wan, Nuzha, Lin 2024, "Pipeline Parallelism with Controllable Memory", and Qi et al. 2023, section 6)
//
//   no bubble, for F = I = W and at least 2p micro-batches; 2p live ones, of stages half as long: on every rank the
//   memory of 1F1B's first
//
// The weight gradients of a stage are added in the order of the micro-batches.
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

Schedule zero_bubble_v(int ranks, int micro_batches);

}  // namespace ninefold::pipeline
