#include "06_pipeline/runner/predict.h"

#include <algorithm>
#include <map>

namespace ninefold::pipeline {
namespace {

int64_t peak_during(const Action& action, const StageActivations& stage) {
  switch (action.kind) {
    case Kind::forward:
      return stage.forward;
    case Kind::input_gradient:
      return stage.input_gradient;
    case Kind::backward:
      return stage.backward;
    case Kind::weight_gradient:
      return stage.kept_for_weights;
    default:
      return 0;
  }
}

// What is held of the action's micro-batch before it, and after.
int64_t held_before(const Action& action, const StageActivations& stage) {
  if (action.kind == Kind::weight_gradient) return stage.kept_for_weights;
  return action.gives_input_gradient() ? stage.kept : 0;
}
int64_t held_after(const Action& action, const StageActivations& stage) {
  if (action.kind == Kind::input_gradient) return stage.kept_for_weights;
  return action.kind == Kind::forward ? stage.kept : 0;
}

bool is_ascending(const std::vector<int>& values) { return std::is_sorted(values.begin(), values.end()); }

}  // namespace

RanksOfStages ranks_of_stages(const CheckedSchedule& schedule) {
  RanksOfStages ranks;
  for (int stage = 0; stage < schedule.stages(); ++stage) ranks.push_back(schedule.ranks_of(stage));
  return ranks;
}

int64_t activation_peak(const CheckedSchedule& schedule, int rank, const ActivationsOfStage& stages) {
  int64_t held = 0, peak = 0;
  for (const Task& task : schedule.tasks(rank)) {
    if (task.action.is_of_whole_stage()) continue;
    const StageActivations& stage = stages(task.action.stage, task.action.micro_batch);
    held -= held_before(task.action, stage);
    peak = std::max(peak, held + peak_during(task.action, stage));
    held += held_after(task.action, stage);
  }
  return peak;
}

void predict_messages(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank, const StagedModel& model,
                      int64_t steps) {
  for (const auto& [action, column, receives, sends] : schedule.tasks(rank)) {
    if (!sends) continue;
    const int boundary = sends->is_gradient ? action.stage - 1 : action.stage;
    ledger.predict(model.pipeline().name(), Operation::send, steps, {1, model.message_bytes(boundary)});
  }
}

bool adds_in_order(const CheckedSchedule& schedule) {
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    std::map<int, std::vector<int>> input, weight;  // micro-batches by stage, as their gradients are added
    for (const Task& task : schedule.tasks(rank)) {
      const Action& action = task.action;
      if (action.gives_input_gradient()) input[action.stage].push_back(action.micro_batch);
      if (action.gives_weight_gradient()) weight[action.stage].push_back(action.micro_batch);
    }
    for (const auto& [stage, micro_batches] : weight) {
      if (!is_ascending(micro_batches) || !is_ascending(input[stage])) return false;
      // A half is where its ends are.
      const int half = schedule.micro_batches() / directions_of(schedule);
      const int first = micro_batches.front(), count = static_cast<int>(micro_batches.size());
      if (count != half || first % half != 0 || micro_batches.back() != first + half - 1) return false;
    }
  }
  return true;
}

int directions_of(const CheckedSchedule& schedule) {
  size_t most = 1;
  for (int stage = 0; stage < schedule.stages(); ++stage) most = std::max(most, schedule.ranks_of(stage).size());
  return static_cast<int>(most);
}

}  // namespace ninefold::pipeline
