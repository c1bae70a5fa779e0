// Model parallelism as plain as can be: every rank holds one stage, and the whole batch goes through all of them and
// back. While a rank computes all others wait, so n ranks are idle (n-1)/n of the time: what they gain is memory.
// Chapter 06 fills that time.
//
//   rank 0   F....B
//   rank 1   .F..B.
//   rank 2   ..FB..
#pragma once

#include "04_model_parallel/computations.h"
#include "04_model_parallel/staged_model.h"
#include "common/train/trainer.h"

namespace ninefold {

class ModelParallel {
 public:
  // Stage s is on rank s of the pipeline. The model outlives it.
  explicit ModelParallel(StagedModel& model)
      : model_(model), stage_(model.pipeline().rank()), computations_(model.pipeline().world()) {}

  // Takes a micro-batch forward through this rank's stage and back; returns the sum of its losses, on all ranks.
  double run(const MicroBatch& part);

  // What the trainer needs to know, for steps of one micro-batch of `samples`.
  Parallelism parallelism(const Task& task, const TrainOptions& options);

 private:
  StagedModel& model_;
  int stage_;
  Computations computations_;
};

}  // namespace ninefold
