// Executes a schedule, whichever it is: a rank does its tasks one after the other, as the head of schedule/checked.h
// promises. There is no schedule's name in here.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "04_model_parallel/computations.h"
#include "06_pipeline/runner/stage_units.h"

namespace ninefold::pipeline {

class Runner {
 public:
  // `units`: where the stages' parameters are sharded, else nullptr. Everything passed outlives it.
  Runner(const StagedModel& model, const CheckedSchedule& schedule, StageUnits* units);

  // Takes a step's micro-batches through the stages of this rank and back; returns the sum of their losses, the same on
  // all ranks of the pipeline.
  double run(const std::vector<MicroBatch>& micro_batches);
  Score evaluate(const Batch& batch);

  const Computations& computations() const { return computations_; }

 private:
  // A tensor for a task, from another rank or from a task before.
  struct Input {
    Tensor tensor;
    Pending pending;
  };
  const std::vector<Task>& tasks() const { return schedule_.tasks(rank_); }
  void start_receive(size_t task);
  void perform(const Task& task, const std::vector<MicroBatch>& micro_batches);
  void forward(const Task& task, const MicroBatch& part);
  void backward(const Task& task);
  void weight_gradients(const Action& action);
  Tensor take_input(const Task& task);
  void hand_on(const Task& task, int to_stage, const Tensor& result);
  // Times and traces what an action computes.
  template <typename Compute>
  auto compute(const Action& action, const Compute& work) {
    return computations_.time(action.stage, name_of(action.kind).front(), action.micro_batch, work);
  }

  const StagedModel& model_;
  const CheckedSchedule& schedule_;
  StageUnits* units_;
  int rank_;
  Computations computations_;
  std::vector<int64_t> micro_batches_of_;  // this rank's, by stage
  // Of the step under way.
  using Key = std::tuple<int, bool, int>;  // stage, is it the gradient of what the stage hands on, micro-batch
  std::map<Key, Input> inputs_;
  std::map<std::pair<int, int>, Saved> live_;  // by stage and micro-batch
  double loss_sum_ = 0;
};

}  // namespace ninefold::pipeline
