// GPipe: every rank computes all forwards, then all backwards.
// (Huang et al. 2018, "GPipe: Efficient Training of Giant Neural Networks using Pipeline Parallelism")
//
//   bubble (p-1) / (m+p-1) of the time, m live micro-batches on every rank     p ranks, m micro-batches
#pragma once

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

Schedule gpipe(int ranks, int micro_batches);

}  // namespace ninefold::pipeline
