#include "06_pipeline/runner/runner.h"

#include "common/comm/control.h"
#include "common/comm/world.h"

namespace ninefold::pipeline {

Runner::Runner(const StagedModel& model, const CheckedSchedule& schedule, StageUnits* units)
    : model_(model),
      schedule_(schedule),
      units_(units),
      rank_(model.pipeline().rank()),
      computations_(model.pipeline().world()),
      micro_batches_of_(model.stages(), 0) {
  for (const Task& task : tasks()) micro_batches_of_[task.action.stage] += task.action.kind == Kind::forward;
}

double Runner::run(const std::vector<MicroBatch>& micro_batches) {
  model_.begin_step(micro_batches_of_);
  computations_.begin_step();
  loss_sum_ = 0;
  start_receive(0);
  for (size_t i = 0; i < tasks().size(); ++i) {
    start_receive(i + 1);  // so that it can arrive while this task computes
    perform(tasks()[i], micro_batches);
  }
  expect(live_.empty() && inputs_.empty(), "a schedule ended with {} micro-batches under way", live_.size());
  model_.end_step();
  return control::sum(model_.pipeline(), loss_sum_);
}

void Runner::start_receive(size_t index) {
  if (index >= tasks().size() || !tasks()[index].receives) return;
  const auto& [action, column, receives, sends] = tasks()[index];
  const int boundary = receives->is_gradient ? action.stage : action.stage - 1;
  Input& input = inputs_[{action.stage, receives->is_gradient, action.micro_batch}];
  input.tensor = model_.message_after(boundary);
  input.pending = model_.pipeline().start_recv(input.tensor, receives->from, receives->tag % control_tag);
}

void Runner::perform(const Task& task, const std::vector<MicroBatch>& micro_batches) {
  const Action& action = task.action;
  if (units_ && !action.is_of_whole_stage()) units_->wait_unsharded(action.stage);
  switch (action.kind) {
    case Kind::forward:
      return forward(task, micro_batches.at(action.micro_batch));
    case Kind::input_gradient:
    case Kind::backward:
      return backward(task);
    case Kind::weight_gradient:
      return weight_gradients(action);
    case Kind::unshard:
      return units_->unshard(action.stage);
    case Kind::reshard:
      return units_->reshard(action.stage);
    case Kind::reduce_grad:
      return units_->reduce(action.stage);
  }
}

void Runner::forward(const Task& task, const MicroBatch& part) {
  const Action& action = task.action;
  Tensor x = model_.is_first(action.stage) ? Tensor() : take_input(task);
  const Tensor y = compute(action, [&] {
    StagedModel::Input loaded = model_.load(action.stage, part);
    if (model_.is_first(action.stage)) x = std::move(loaded.x);
    Saved& saved = live_.try_emplace({action.stage, action.micro_batch}, std::move(loaded.step)).first->second;
    return model_.forward(action.stage, std::move(x), saved);
  });
  if (!model_.is_last(action.stage)) return hand_on(task, action.stage + 1, y);
  loss_sum_ += ops::sum(live_.at({action.stage, action.micro_batch}).step().losses);
}

// I leaves the gradients of weights to W; B computes them on its way.
void Runner::backward(const Task& task) {
  const Action& action = task.action;
  const auto live = live_.find({action.stage, action.micro_batch});
  Saved& saved = live->second;
  if (action.kind == Kind::input_gradient) saved.defer_weight_gradients();
  Tensor dy = model_.is_last(action.stage) ? Tensor() : take_input(task);
  const Tensor dx = compute(action, [&] { return model_.backward(action.stage, std::move(dy), saved); });
  if (action.kind == Kind::backward) {
    expect(saved.empty(), "{} left tensors that its forward kept", text_of(action));
    live_.erase(live);
  }
  if (!model_.is_first(action.stage)) hand_on(task, action.stage - 1, dx);
}

void Runner::weight_gradients(const Action& action) {
  const auto live = live_.find({action.stage, action.micro_batch});
  compute(action, [&] { live->second.compute_weight_gradients(); });
  expect(live->second.empty(), "{} left tensors that its forward kept", text_of(action));
  live_.erase(live);
}

Tensor Runner::take_input(const Task& task) {
  const Action& action = task.action;
  const auto found = inputs_.find({action.stage, action.kind != Kind::forward, action.micro_batch});
  found->second.pending.wait();
  Tensor tensor = std::move(found->second.tensor);
  inputs_.erase(found);
  tensor.book_as(MemoryKind::activations);
  return tensor;
}

// Nobody waits for a send: it keeps its tensor alive until it has been received.
void Runner::hand_on(const Task& task, int to_stage, const Tensor& result) {
  result.book_as(MemoryKind::communication);
  if (task.sends) {
    static_cast<void>(model_.pipeline().start_send(result, task.sends->to, task.sends->tag % control_tag));
  } else {
    inputs_[{to_stage, task.action.kind != Kind::forward, task.action.micro_batch}].tensor = result;
  }
}

Score Runner::evaluate(const Batch& batch) {
  if (units_) units_->unshard_all();
  const Score score = model_.evaluate(batch);
  if (units_) units_->reshard_all();
  return score;
}

}  // namespace ninefold::pipeline
