#include "06_pipeline/schedule/simulate.h"

#include <algorithm>

#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

double duration(const Action& action, const StageTimes& stage) {
  switch (action.kind) {
    case Kind::forward:
      return stage.forward;
    case Kind::input_gradient:
      return stage.input_gradient;
    case Kind::weight_gradient:
      return stage.weight_gradient;
    case Kind::backward:
      return stage.backward();
    default:
      return 0;
  }
}

}  // namespace

double Simulation::cost() const {
  double longest = 0;
  for (const RankTime& rank : ranks) longest = std::max(longest, rank.span());
  return longest;
}

double Simulation::bubble() const {
  double busy = 0;
  for (const RankTime& rank : ranks) busy += rank.busy / static_cast<double>(ranks.size());
  return (cost() - busy) / cost();
}

Simulation simulate(const CheckedSchedule& schedule, const Times& times) {
  require(static_cast<int>(times.stages.size()) == schedule.stages(), "there are times for {} stages, but {} stages",
          times.stages.size(), schedule.stages());
  Simulation result;
  result.intervals.resize(schedule.ranks());
  result.ranks.resize(schedule.ranks());
  std::map<Action, double> ended;
  for (const auto& [rank, index] : schedule.order()) {
    const Task& task = schedule.tasks(rank)[index];
    RankTime& time = result.ranks[rank];
    double start = time.end;
    for (const Action& need : schedule.needs(task.action)) {
      const bool travels = task.receives && need.stage != task.action.stage;
      start = std::max(start, ended.at(need) + (travels ? times.communication : 0));
    }
    const double length = duration(task.action, times.stages[task.action.stage]), end = start + length;
    result.intervals[rank].push_back({start, end});
    result.total = std::max(result.total, end);
    if (task.action.is_of_whole_stage()) continue;
    if (time.busy == 0) time.start = start;
    time.end = end;
    time.busy += length;
    ended[task.action] = end;
  }
  return result;
}

}  // namespace ninefold::pipeline
