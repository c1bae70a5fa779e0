// A model on the ranks of a pipeline, and the schedule that takes micro-batches through it: what a trainer needs to
// know of both.
#pragma once

#include <memory>

#include "06_pipeline/runner/runner.h"
#include "06_pipeline/schedule/times.h"
#include "common/train/trainer.h"

namespace ninefold::pipeline {

class Pipeline {
 public:
  // To be called before `materialize`, and before data parallelism is told of the model. Everything passed by reference
  // outlives it.
  Pipeline(Model& model, CheckedSchedule schedule, const std::vector<Stage>& stages,
           const std::vector<ChildOnPaper>& children, const Group& pipeline, const ninefold::Task& task);

  // Divides the stages over data-parallel ranks. Throws UserError unless the schedule unshards every stage.
  void shard(const ShardGroups& groups, const ShardingPolicy::Types& types);

  const CheckedSchedule& schedule() const { return schedule_; }
  // Each stage's own medians, in milliseconds, over the ranks of the pipeline, and by formula what a message takes in
  // virtual time. After the last step, on all ranks.
  Times times() const;

  // `data` is that of the data parallelism within each stage; where stages are sharded, nothing.
  Parallelism parallelism(Parallelism data, const ninefold::Task& task, const TrainOptions& options);

  // What each rank holds: its stages, and by the schedule its live micro-batches and bytes of activations.
  std::string description(const ninefold::Task& task, const TrainOptions& options) const;

 private:
  void predict_memory(MemoryByKind& bytes, const ninefold::Task& task, const TrainOptions& options) const;
  BubbleRecord bubble() const;
  Numerics numerics(const Parallelism& data, const TrainOptions& options) const;
  int64_t activation_bytes(int rank, const ninefold::Task& task, const TrainOptions& options) const;

  CheckedSchedule schedule_;
  StagedModel model_;
  int rank_;
  std::unique_ptr<StageUnits> units_;
  std::unique_ptr<Runner> runner_;
};

}  // namespace ninefold::pipeline
