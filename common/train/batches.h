// A step's data: the global batch, the part of it that each data rank handles, and the pass over that part.
#pragma once

#include <vector>

#include "common/nn/model.h"
#include "common/train/options.h"
#include "common/train/task.h"

namespace ninefold {

class MicroBatchGraphs;  // common/train/micro_batch_graphs.h

// The samples of one optimizer step, in order.
struct GlobalBatch {
  int64_t step;
  std::vector<int64_t> indices;
  double loss_scale = 1;  // by which gradients will be too large
  // As in Step: where routers book, and whose choices they take.
  RoutingRecord* routing = nullptr;
  const RoutingRecord* replay = nullptr;
  int64_t targets(const Task& task) const { return static_cast<int64_t>(indices.size()) * task.rows_per_sample(); }
};

// One forward's worth of a global batch.
struct MicroBatch {
  int64_t step;
  int64_t first_sample;  // place of the first sample within the global batch
  std::vector<int64_t> indices;
  int64_t global_targets;
  double loss_scale;
  uint64_t seed;
  RoutingRecord* routing = nullptr;
  const RoutingRecord* replay = nullptr;
  std::vector<int32_t> positions{};  // of each sample, those whose rows this rank has; empty: all
};

// What data rank `rank` of `ranks` does of the batch: the rank-th contiguous block, in micro-batches of
// options.micro_batch samples.
std::vector<MicroBatch> micro_batches(const GlobalBatch& batch, const Task& task, const TrainOptions& options, int rank,
                                      int ranks);

// The order in which the gradients of all data ranks and their micro-batches are added up. Floating-point sums depend
// on it: a technique states it, and the oracle follows it.
struct SumGrouping {
  // So many neighbouring data ranks add up first, then these sums are added; 0: all ranks at once.
  int inner_ranks = 0;
  // Each micro-batch is summed over the inner ranks by itself, then these sums are added. Otherwise a rank's
  // micro-batches accumulate before any rank's gradient meets another's.
  bool each_micro_batch = false;
  // Sums over ranks are added in f32 and rounded to the gradients' type once, at the end. Otherwise after every term.
  bool in_f32 = false;
  // A rank's micro-batches fall into so many equal parts, the first ones first. Each part is summed over the ranks by
  // itself; these sums are added last. (Two copies of a pipeline's stages, one for each direction.)
  int directions = 1;
  // Ranks whose partial sums of activations, and of their gradients, are added in the type that layers compute in.
  int partial_ranks = 1;
};

// The rows of `batch`, whole samples, that lie at `positions` of each sample; all where there are none.
Batch rows_at(const Batch& batch, const Task& task, const std::vector<int32_t>& positions);
// The training data of a micro-batch: its rows of its samples.
Batch load(const Task& task, const DeviceHandle& device, const MicroBatch& part);

// Forward and backward of each micro-batch in turn, into the parameters' gradients, which start from zero. A gradient
// is complete after the last micro-batch, or, with `each_micro_batch`, starts from zero and is complete in each of
// them. Returns the sum of the losses. With `graphs`, a GPU repeats them by itself.
double accumulate_gradients(Model& model, const std::vector<Parameter*>& parameters, const Task& task,
                            const DeviceHandle& device, const std::vector<MicroBatch>& micro_batches,
                            bool each_micro_batch = false, MicroBatchGraphs* graphs = nullptr);

// What every forward over `batch` needs to know, before it is told which step and micro-batch it is.
Step make_step(const Task& task, const DeviceHandle& device, const Batch& batch);
// The same, and which step and micro-batch it is.
Step make_step(const Task& task, const DeviceHandle& device, const Batch& batch, const MicroBatch& part);

// How well a model does on some samples.
struct Score {
  double loss_sum = 0;
  double correct = 0;  // rows whose target has the highest score
};
Score evaluate(Model& model, const Task& task, const DeviceHandle& device, const Batch& batch);

}  // namespace ninefold
