#include "common/nn/saved.h"

#include <algorithm>

#include "common/tensor/ops.h"

namespace ninefold {

bool Saved::keeps_push() {
  if (!step_.training) return false;
  if (running_) running_->pushes += step_.recomputing ? -1 : 1;
  return !running_ || step_.recomputing;
}

void Saved::push(const Tensor& tensor) {
  expect(!step_.training || !tensor.defined() ||
             (tensor.kind() != MemoryKind::parameters && tensor.kind() != MemoryKind::gathered),
         "a forward would keep a parameter of shape {}", to_string(tensor.shape()));
  if (keeps_push()) stack_.push_back(tensor);
}

Tensor Saved::pop() {
  expect(!stack_.empty(), "backward asks for more tensors than forward kept");
  Tensor top = std::move(stack_.back());
  stack_.pop_back();
  return top;
}

void Saved::push_plan(std::shared_ptr<const void> plan) {
  if (keeps_push()) plans_.push_back(std::move(plan));
}

std::shared_ptr<const void> Saved::pop_any_plan() {
  expect(!plans_.empty(), "backward asks for more plans than forward kept");
  std::shared_ptr<const void> top = std::move(plans_.back());
  plans_.pop_back();
  return top;
}

void Saved::add_weight_gradients(std::function<void()> work) {
  if (!defers_weight_gradients_) return work();
  weight_gradients_.push_back(std::move(work));
}

void Saved::compute_weight_gradients() {
  for (; !weight_gradients_.empty(); weight_gradients_.pop_front()) weight_gradients_.front()();
}

Tensor Saved::own(const Tensor& tensor) const {
  const auto is_it = [&](const Checkpoint::Result& result) { return result.tensor.shares_storage_with(tensor); };
  if (!running_ || std::none_of(running_->results.begin(), running_->results.end(), is_it)) return tensor;
  return ops::cast(tensor, tensor.dtype());
}

void Saved::checkpoint(const Tensor& x, const std::set<SavedOperation>& save, const std::function<void()>& forward) {
  if (!step_.training) return forward();
  expect(!running_, "a checkpointed layer lies inside another one");
  running_ = {.input = x, .save = save};
  forward();
  // What was computed after the last push will not be computed again.
  while (!running_->results.empty() && running_->results.back().pushes == running_->pushes)
    running_->results.pop_back();
  checkpoints_.push_back(*std::exchange(running_, std::nullopt));
}

void Saved::recompute(const std::function<void(const Tensor& x)>& forward) {
  expect(!running_ && !checkpoints_.empty(), "there is no checkpoint to compute again from");
  running_ = std::move(checkpoints_.back());
  checkpoints_.pop_back();
  step_.recomputing = true;
  forward(running_->input);
  step_.recomputing = false;
  expect(running_->pushes == 0 && running_->results.empty(), "a forward pushed other tensors when it was run again");
  running_.reset();
}

void Saved::hold(std::span<Tensor> results) {
  for (const Tensor& result : results) running_->results.push_back({result, running_->pushes});
}

void Saved::take(std::span<Tensor> results) {
  for (Tensor& result : results) {
    expect(!running_->results.empty(), "a forward asks for more results than it kept when it was first run");
    result = std::move(running_->results.front().tensor);
    running_->results.pop_front();
  }
}

}  // namespace ninefold
