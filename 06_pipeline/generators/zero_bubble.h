// ZB-H1 and ZB-H2: the backward is split. Its first half I is what the stage before waits for; its second half W nobody
// waits for, so that it can be put where a rank would be idle.
// (Qi, Wan, Huang, Lin 2023, "Zero Bubble Pipeline Parallelism", section 2)
//
//            forwards before the first I   W follows I      live micro-batches     idle, for F = I = W
//   ZB-H1    p - rank                      rank later       p                      p - 1 times F
//   ZB-H2    2 (p - rank) - 1              2 rank later     2p - 1                 nothing
//
// The weight gradients of a stage are added in the order of the micro-batches.
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

Schedule zero_bubble_h1(int ranks, int micro_batches);
Schedule zero_bubble_h2(int ranks, int micro_batches);

}  // namespace ninefold::pipeline
