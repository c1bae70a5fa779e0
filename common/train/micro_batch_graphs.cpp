#include "common/train/micro_batch_graphs.h"

#include "common/base/trace.h"

namespace ninefold {

MicroBatchGraphs::MicroBatchGraphs(Model& model, const std::vector<Parameter*>& parameters, const Task& task,
                                   DeviceHandle device)
    : model_(model), parameters_(parameters), task_(task), device_(std::move(device)) {}

double MicroBatchGraphs::forward_backward(const MicroBatch& part, bool is_first) {
  bring_in(part);
  Graph& graph = graphs_[is_first ? 0 : 1];
  if (!std::exchange(graph.has_run, true)) return ninefold::forward_backward(model_, batch_.x, step_);
  if (!graph.recording) record(graph);
  const Span span(device_->trace, "compute", "repeated forward and backward");
  graph.recording->replay();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (graph.contributions[i] > 0) parameters_[i]->contributed(graph.contributions[i]);
  }
  return ops::sum(losses_);
}

void MicroBatchGraphs::bring_in(const MicroBatch& part) {
  if (!batch_.x.defined()) {
    batch_ = load(task_, device_, part);
    step_ = make_step(task_, device_, batch_, part);
    return;
  }
  const Batch next = load(task_, host_, part);
  batch_.x.copy_from_host(next.x.raw());
  batch_.targets.copy_from_host(next.targets.raw());
}

// What parameters count meanwhile is taken back: the device has done nothing yet.
void MicroBatchGraphs::record(Graph& graph) {
  if (!losses_.defined()) {
    const MemoryScope scope(*device_, MemoryKind::workspace);
    losses_ = Tensor::empty(device_, {batch_.targets.size()}, Dtype::f32);
  }
  std::vector<std::function<void()>> listeners;
  for (Parameter* parameter : parameters_) {
    listeners.push_back(std::exchange(parameter->on_gradient_complete, nullptr));
    graph.contributions.push_back(parameter->missing());
  }
  graph.recording.emplace(device_, [&] { ops::copy_(losses_, losses_and_gradients(model_, batch_.x, step_)); });
  for (size_t i = 0; i < parameters_.size(); ++i) {
    graph.contributions[i] -= parameters_[i]->missing();
    if (graph.contributions[i] > 0) parameters_[i]->contributed(-graph.contributions[i]);
    parameters_[i]->on_gradient_complete = std::move(listeners[i]);
  }
}

}  // namespace ninefold
