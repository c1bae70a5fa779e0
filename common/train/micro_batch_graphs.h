// --cuda-graph: the forward and the backward of a micro-batch are noted once, and from then on a GPU repeats them by
// itself. What is noted are addresses and numbers, so each micro-batch's data are brought into the same tensors, and
// nothing within may depend on the step: no dropout, no loss scale, no routing, no collectives.
#pragma once

#include <optional>
#include <vector>

#include "common/tensor/recording.h"
#include "common/train/batches.h"

namespace ninefold {

class MicroBatchGraphs {
 public:
  // All of them outlive it. The parameters' values and gradients stay where they are.
  MicroBatchGraphs(Model& model, const std::vector<Parameter*>& parameters, const Task& task, DeviceHandle device);

  // As forward_backward of the model. `is_first`: of those whose gradients are added up; it assigns what others add.
  // Either kind runs once as usual, whatever is made only once being made then, and is noted the second time.
  // Parameters hear of their contributions when the device has been told of all: nothing is sent within a backward.
  double forward_backward(const MicroBatch& part, bool is_first);

 private:
  struct Graph {
    bool has_run = false;
    std::optional<Recording> recording{};
    std::vector<int64_t> contributions{};  // to each parameter's gradient
  };
  void bring_in(const MicroBatch& part);
  void record(Graph& graph);

  Model& model_;
  std::vector<Parameter*> parameters_;
  const Task& task_;
  DeviceHandle device_, host_ = make_cpu_device();
  Batch batch_;
  Step step_;
  Tensor losses_;
  Graph graphs_[2];  // of the first, and of others
};

}  // namespace ninefold
