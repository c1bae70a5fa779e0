// The matmul peak of this machine as it is now: what a step's speed is measured against.
#pragma once

#include <vector>

#include "common/base/stopwatch.h"
#include "common/train/task.h"

namespace ninefold {

// FLOP/s of the best among 1024³, 2048³ and the model's own shapes, each the mean of calls in a row. Every rank that
// computes at the same time should call it at the same time. `device` is one of its own: the matrices are in no books.
double measure_matmul_peak(const DeviceHandle& device, Dtype dtype, std::vector<MatmulShape> shapes,
                           Clock clock = Clock::wall);

}  // namespace ninefold
