// From what ranks measured of their actions to what the simulator takes.
#pragma once

#include <vector>

#include "04_model_parallel/computations.h"
#include "06_pipeline/schedule/times.h"

namespace ninefold::pipeline {

// Each stage's own median of F, I and W, in milliseconds. Where a backward is never cut, its median is shared out in
// equal halves.
std::vector<StageTimes> stage_times(const std::vector<Computations::Steps>& ranks, int stages);

}  // namespace ninefold::pipeline
