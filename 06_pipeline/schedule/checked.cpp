#include "06_pipeline/schedule/checked.h"

#include <algorithm>
#include <set>

#include "06_pipeline/schedule/checks.h"
#include "common/base/check.h"

namespace ninefold::pipeline {

CheckedSchedule::CheckedSchedule(const Schedule& schedule, std::string_view name) : tasks_(schedule.size()) {
  for (int rank = 0; rank < ranks(); ++rank) {
    const Row& row = schedule[rank];
    for (int column = 0; column < static_cast<int>(row.size()); ++column) {
      if (row[column]) add(*row[column], {rank, column}, name);
    }
  }
  check_ranks(*this, name);
  check_micro_batches(*this, name);
  order_ = order_of(*this, name);
  check_sharding(*this, name);

  std::map<std::pair<int, int>, int> sent;  // messages by (from, to)
  for (const Turn& turn : order_) connect(tasks_[turn.rank][turn.task], turn.rank, sent);
}

void CheckedSchedule::add(const Action& action, Place place, std::string_view name) {
  tasks_[place.rank].push_back({action, place.column});
  if (action.is_of_whole_stage()) return;
  stages_ = std::max(stages_, action.stage + 1);
  micro_batches_ = std::max(micro_batches_, action.micro_batch + 1);
  const auto [first, is_new] = places_.try_emplace(action, place);
  require(is_new, "{}, {}: {} is there a second time; the first is in {}", name, text_of(place), text_of(action),
          text_of(first->second));
}

// Gives a task its messages. Its producer comes first in the order, so what it receives has been sent.
void CheckedSchedule::connect(Task& task, int rank, std::map<std::pair<int, int>, int>& sent) {
  const Action& action = task.action;
  const bool is_forward = action.kind == Kind::forward;
  if (!is_forward && !action.gives_input_gradient()) return;

  const auto is_elsewhere = [&](int stage) {
    return stage >= 0 && stage < stages_ && rank_of(stage, action.micro_batch) != rank;
  };
  const int direction = is_forward ? 1 : -1;
  const int source = action.stage - direction, target = action.stage + direction;
  if (is_elsewhere(source)) {
    task.receives = task_of(is_forward ? Action{source, Kind::forward, action.micro_batch}
                                       : input_gradient(source, action.micro_batch))
                        .sends;
  }
  if (is_elsewhere(target)) {
    const int to = rank_of(target, action.micro_batch);
    task.sends = Message{rank, to, sent[{rank, to}]++, !is_forward};
  }
}

const Task& CheckedSchedule::task_of(const Action& action) const {
  const Place place = places_.at(action);
  const auto& row = tasks_[place.rank];
  return *std::lower_bound(row.begin(), row.end(), place.column,
                           [](const Task& task, int column) { return task.column < column; });
}

std::optional<Place> CheckedSchedule::find(const Action& action) const {
  const auto found = places_.find(action);
  if (found == places_.end()) return std::nullopt;
  return found->second;
}

Action CheckedSchedule::input_gradient(int stage, int micro_batch) const {
  const Action half{stage, Kind::input_gradient, micro_batch};
  return find(half) ? half : Action{stage, Kind::backward, micro_batch};
}

std::vector<int> CheckedSchedule::stages_of(int rank) const {
  std::set<int> stages;
  for (const Task& task : tasks(rank)) stages.insert(task.action.stage);
  return {stages.begin(), stages.end()};
}

std::vector<int> CheckedSchedule::ranks_of(int stage) const {
  std::set<int> ranks;
  for (int micro_batch = 0; micro_batch < micro_batches_; ++micro_batch) ranks.insert(rank_of(stage, micro_batch));
  return {ranks.begin(), ranks.end()};
}

std::vector<Action> CheckedSchedule::needs(const Action& action) const {
  const auto& [stage, kind, micro_batch] = action;
  std::vector<Action> needs;
  if (kind == Kind::forward) {
    if (stage > 0) needs.push_back({stage - 1, Kind::forward, micro_batch});
  } else if (action.gives_input_gradient()) {
    needs.push_back({stage, Kind::forward, micro_batch});
    if (stage + 1 < stages_) needs.push_back(input_gradient(stage + 1, micro_batch));
  } else if (kind == Kind::weight_gradient) {
    needs.push_back({stage, Kind::input_gradient, micro_batch});
  }
  return needs;
}

std::string title_of(const CheckedSchedule& schedule, std::string_view name) {
  return fmt::format("{}: {} ranks, {} stages, {} micro-batches", name, schedule.ranks(), schedule.stages(),
                     schedule.micro_batches());
}

void require_size(const Schedule& schedule, std::optional<int> ranks, std::optional<int> micro_batches,
                  std::string_view name) {
  const int rows = static_cast<int>(schedule.size());
  require(!ranks || rows >= *ranks, "{} has {} rows, but the pipeline has {} ranks; give every rank a row", name, rows,
          ranks.value_or(0));
  int found = 0;
  for (int rank = 0; rank < rows; ++rank) {
    for (int column = 0; column < static_cast<int>(schedule[rank].size()); ++column) {
      const auto& cell = schedule[rank][column];
      if (!cell) continue;
      const std::string place = text_of(Place{rank, column});
      require(!ranks || rank < *ranks, "{}, {}: {} is on a rank too many; the pipeline has {}", name, place,
              text_of(*cell), ranks.value_or(0));
      require(!micro_batches || cell->micro_batch < *micro_batches,
              "{}, {}: {} is of a micro-batch too many; there are {}", name, place, text_of(*cell),
              micro_batches.value_or(0));
      found = std::max(found, cell->micro_batch + 1);
    }
  }
  require(!micro_batches || found == *micro_batches, "{} is for {} micro-batches, but there are {}", name, found,
          micro_batches.value_or(0));
}

}  // namespace ninefold::pipeline
