// The model that a parallel run is compared with: whole, on one rank, with gradients of a global batch that are added
// up in the groups in which that run adds them.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "common/optim/optimizer.h"
#include "common/train/batches.h"
#include "common/train/options.h"
#include "common/train/task.h"

namespace ninefold {

class SerialModel {
 public:
  // On a device of its own. `task` and `options` outlive it.
  SerialModel(const Task& task, const TrainOptions& options, const Precision& precision, int data_ranks,
              const SumGrouping& grouping);

  // Sums over the global batch, into `gradients`. Returns the sum of the losses.
  double compute_gradients(const GlobalBatch& batch);

  const DeviceHandle device;
  const std::unique_ptr<Model> model;
  const std::vector<Parameter*> parameters;
  const std::unique_ptr<Optimizer> optimizer;
  // The parameters'.
  const std::vector<Tensor> gradients;

 private:
  // Coordinates of a contribution: direction, block of ranks, micro-batch (where each is summed by itself), rank in the
  // block.
  using Term = std::array<int, 4>;
  using Tensors = std::vector<Tensor>;
  const Tensors& sum(const GlobalBatch& batch, Term term, size_t level);
  const Tensors& contribution(const GlobalBatch& batch, const Term& term);

  const Task& task_;
  const TrainOptions& options_;
  int data_ranks_;
  bool sums_in_f32_;
  Term extents_;                 // of each coordinate of a Term
  std::array<Tensors, 4> sums_;  // partial sums, one for each level of the grouping that has more than one term
  std::vector<double> losses_;   // of each data rank
};

}  // namespace ninefold
