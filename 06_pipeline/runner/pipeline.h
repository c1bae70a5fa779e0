// A model on the ranks of a pipeline, and the schedule that takes micro-batches through it: what a trainer needs to
// know of both.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "06_pipeline/runner/runner.h"
#include "06_pipeline/schedule/times.h"
#include "common/train/trainer.h"

namespace ninefold::pipeline {

// What some of the model's children keep of a micro-batch on this rank: by the task's formula, unless a technique
// divides the layers of the stages further.
using ActivationsOf = std::function<StageActivations(const Children&)>;
ActivationsOf activations_of(const ninefold::Task& task, const TrainOptions& options);

// The same of the micro-batch whose first sample this is, of tokens that routers sent to experts as the record says.
using RoutedActivations = std::function<StageActivations(const Children&, int64_t first_sample, const RoutingRecord&)>;

class Pipeline {
 public:
  // To be called before `materialize`, and before data parallelism is told of the model. Everything passed by reference
  // outlives it.
  Pipeline(Model& model, CheckedSchedule schedule, const std::vector<Stage>& stages,
           const std::vector<ChildOnPaper>& children, const Group& pipeline, const ninefold::Task& task);

  // Divides the states of the stages over data-parallel ranks by policy.stage, 1 to 3, after every other technique has
  // wrapped their layers. Returns what the trainer needs to know of that; it refers to this object. Throws UserError
  // where the schedule's table or the policy does not fit: 3 takes a table that unshards every stage, 1 and 2 one that
  // unshards none.
  Parallelism shard(const DataShards& groups, const ShardingPolicy& policy);

  const CheckedSchedule& schedule() const { return schedule_; }
  // Each stage's own medians, in milliseconds, over the ranks of the pipeline, and by formula what a message takes in
  // virtual time. After the last step, on all ranks.
  Times times() const;

  // `inner` is that of what happens within each stage: data parallelism, and other techniques beside it.
  // `routed`: where layers are mixtures of experts.
  Parallelism parallelism(Parallelism inner, const ActivationsOf& activations, const TrainOptions& options,
                          const RoutedActivations& routed = {});

  // What each rank holds: its stages, and by the schedule its live micro-batches and bytes of activations.
  std::string description(const ActivationsOf& activations) const;
  // The part of the model's children that a stage is.
  const Children& children_of(int stage) const { return model_.stage(stage).children; }
  // Micro-batches that this rank takes through each of its stages in a step.
  std::map<int, int64_t> work() const;

 private:
  BubbleRecord bubble() const;
  Numerics numerics(const Parallelism& inner, const TrainOptions& options) const;
  int64_t activation_bytes(int rank, const ActivationsOf& activations) const;
  // Of a forward of an evaluation through this rank's stages; 0 where there is none.
  int64_t evaluation_bytes(const ActivationsOf& activations, const TrainOptions& options) const;
  int64_t routed_activation_bytes(const RoutedActivations& activations, const RoutingRecord& routing,
                                  int64_t samples) const;

  CheckedSchedule schedule_;
  StagedModel model_;
  int rank_;
  std::unique_ptr<StageUnits> units_;
  std::unique_ptr<Runner> runner_;
};

// Data parallelism within each stage, as chapter 03 divides a whole model: policy.stage 0 is chapter 02. To be called
// before `materialize`, after every other technique. Everything passed outlives what is returned.
Parallelism divide(Pipeline& pipeline, Model& model, const Mesh& mesh, const ShardingPolicy& policy,
                   const TrainOptions& options);

}  // namespace ninefold::pipeline
