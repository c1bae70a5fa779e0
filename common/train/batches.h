// A step's data: the global batch, the part of it that each data rank handles, and the pass over that part.
#pragma once

#include <vector>

#include "common/nn/model.h"
#include "common/train/options.h"
#include "common/train/task.h"

namespace ninefold {

// The samples of one optimizer step, in order.
struct GlobalBatch {
  int64_t step;
  std::vector<int64_t> indices;
  int64_t targets(const Task& task) const { return static_cast<int64_t>(indices.size()) * task.rows_per_sample(); }
};

// One forward's worth of a global batch.
struct MicroBatch {
  int64_t step;
  int64_t first_sample;  // place of the first sample within the global batch
  std::vector<int64_t> indices;
  int64_t global_targets;
  uint64_t seed;
};

// What data rank `rank` of `ranks` does of the batch: the rank-th contiguous block, in micro-batches of
// options.micro_batch samples.
std::vector<MicroBatch> micro_batches(const GlobalBatch& batch, const Task& task, const TrainOptions& options, int rank,
                                      int ranks);

// Forward and backward of each micro-batch in turn, into the parameters' gradients, which start from zero. Returns the
// sum of the losses.
double accumulate_gradients(Model& model, const std::vector<Parameter*>& parameters, const Task& task,
                            const DeviceHandle& device, const std::vector<MicroBatch>& micro_batches);

// What every forward over `batch` needs to know, before it is told which step and micro-batch it is.
Step make_step(const Task& task, const DeviceHandle& device, const Batch& batch);

}  // namespace ninefold
