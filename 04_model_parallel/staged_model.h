// A model whose stages lie on several ranks of a pipeline. Every rank has the whole model, but storage only for the
// parameters of the stages that it holds; parameters keep their names. What goes from stage to stage, and when, is for
// others to decide: model_parallel.h here, and the schedules of chapter 06.
#pragma once

#include <string>
#include <vector>

#include "04_model_parallel/stages.h"
#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/train/batches.h"

namespace ninefold {

// The ranks of the pipeline that hold each stage, ascending. Usually one; several hold copies.
using RanksOfStages = std::vector<std::vector<int>>;

class StagedModel {
 public:
  // To be called before `materialize`: places the parameters. `children` is the model on paper, for the micro-batches
  // that it will see. Everything passed outlives it.
  StagedModel(Model& model, std::vector<Stage> stages, RanksOfStages ranks_of,
              const std::vector<ChildOnPaper>& children, const Group& pipeline, const Task& task);

  int stages() const { return static_cast<int>(stages_.size()); }
  const Stage& stage(int index) const { return stages_.at(index); }
  const std::vector<int>& ranks_of(int stage) const { return ranks_of_.at(stage); }
  bool is_first(int stage) const { return stage == 0; }
  bool is_last(int stage) const { return stage + 1 == stages(); }
  // Whether this rank holds the stage.
  bool holds(int stage) const;
  const Group& pipeline() const { return pipeline_; }
  const DeviceHandle& device() const { return pipeline_.world().device(); }
  // Whether a parameter has users in several stages: then its gradient is summed in another order than a serial run's.
  bool ties_stages() const { return ties_stages_; }
  // Those whose gradients the stage adds to, once for each user.
  std::vector<Parameter*> parameters_of(int stage) const;

  // What the stage needs to know of a micro-batch; `x` is the data on the first stage, and undefined on the others.
  struct Input {
    Tensor x;
    Step step;
  };
  Input load(int stage, const MicroBatch& part) const;
  // x: the data, or what the stage before handed on. Returns what the next one needs; the last stage returns the
  // scores, and leaves the losses in the step.
  Tensor forward(int stage, Tensor x, Saved& saved) const;
  // dy: the gradient of what the stage handed on, undefined on the last one. Returns that of its input, undefined on
  // the first.
  Tensor backward(int stage, Tensor dy, Saved& saved) const;
  // Room for what the stage hands on, or for its gradient; booked as communication.
  Tensor message_after(int stage) const;
  int64_t message_bytes(int stage) const;

  // A step begins in which this rank takes so many micro-batches through each stage: gradients count as zero.
  void begin_step(const std::vector<int64_t>& micro_batches) const;
  // Its last backward is done: gradients of layers that were not used are zero.
  void end_step() const;
  // Where several ranks hold a parameter, each of them adds the others' gradients to its own. After the data ranks'
  // sums.
  void sum_copies() const;

  // The whole model's forward, stage after stage; the same result on all ranks of the pipeline.
  Score evaluate(const Batch& batch) const;

  // Books what `steps` steps send in sum_copies: an all_reduce for each parameter that is held more than once.
  void predict_copies(TrafficLedger& ledger, int64_t steps) const;

 private:
  void place_parameters();
  int64_t elements_after(int stage) const { return elements(outputs_.at(stage)); }

  Model& model_;
  std::vector<Stage> stages_;
  RanksOfStages ranks_of_;
  std::vector<Shape> outputs_;  // of each stage
  std::vector<Dtype> types_;
  std::vector<int64_t> row_blocks_;
  Group pipeline_;
  const Task& task_;
  // Parameters that other ranks hold too, and the group of all that do.
  struct Copies {
    Group group;
    std::vector<Parameter*> parameters;
  };
  std::vector<Copies> copies_;
  bool ties_stages_ = false;
};

}  // namespace ninefold
