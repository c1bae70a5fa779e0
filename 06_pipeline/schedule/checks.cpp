#include "06_pipeline/schedule/checks.h"

#include <algorithm>

#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

// How far each rank has come: the number of its tasks that are done.
using Progress = std::vector<size_t>;

std::string at(std::string_view name, Place place) { return fmt::format("{}, {}", name, text_of(place)); }

Place next_place(const CheckedSchedule& schedule, int rank, const Progress& done) {
  return {rank, schedule.tasks(rank)[done[rank]].column};
}

bool is_done(const CheckedSchedule& schedule, const Action& action, const Progress& done) {
  const Place place = schedule.find(action).value();
  const auto& tasks = schedule.tasks(place.rank);
  return done[place.rank] == tasks.size() || place.column < tasks[done[place.rank]].column;
}

// What the rank's next task needs and has not got.
std::optional<Action> unmet_need(const CheckedSchedule& schedule, int rank, const Progress& done) {
  for (const Action& need : schedule.needs(schedule.tasks(rank)[done[rank]].action)) {
    if (!is_done(schedule, need, done)) return need;
  }
  return std::nullopt;
}

// No rank can go on: follows from a rank to the one it waits for until one comes again, and tells that round.
[[noreturn]] void tell_cycle(const CheckedSchedule& schedule, std::string_view name, const Progress& done) {
  const auto waits_for = [&](int rank) { return schedule.find(*unmet_need(schedule, rank, done))->rank; };
  int first = 0;
  while (done[first] == schedule.tasks(first).size()) ++first;
  for (int step = 0; step < schedule.ranks(); ++step) first = waits_for(first);

  std::string sentence;
  int rank = first;
  do {
    const Action action = schedule.tasks(rank)[done[rank]].action, need = *unmet_need(schedule, rank, done);
    const Place place = *schedule.find(need);
    sentence += sentence.empty() ? fmt::format("{}: {} cannot start: it needs",
                                               at(name, next_place(schedule, rank, done)), text_of(action))
                                 : fmt::format(", which needs");
    sentence += fmt::format(" {} in {}", text_of(need), text_of(place));
    rank = place.rank;
    const Place blocked = next_place(schedule, rank, done);
    if (blocked == place) continue;
    sentence +=
        fmt::format(", which comes after {} in {}", text_of(schedule.tasks(rank)[done[rank]].action), text_of(blocked));
  } while (rank != first);
  throw UserError(sentence + ": a cycle, in which nothing can start");
}

// Told at the place of an action that waits for the missing one, or else at the end of a row where it could be.
[[noreturn]] void tell_missing(const CheckedSchedule& schedule, std::string_view name, const Action& missing) {
  const auto& [stage, kind, micro_batch] = missing;
  const bool is_forward = kind == Kind::forward;
  for (const Action& waiting :
       {Action{stage, Kind::input_gradient, micro_batch}, Action{stage, Kind::backward, micro_batch},
        Action{stage, Kind::weight_gradient, micro_batch},
        is_forward ? Action{stage + 1, kind, micro_batch} : schedule.input_gradient(stage - 1, micro_batch)}) {
    const auto place = schedule.find(waiting);
    if (!place) continue;
    throw UserError(fmt::format("{}: {} cannot start: it needs {}, which is missing", at(name, *place),
                                text_of(waiting), text_of(missing)));
  }
  int rank = std::min(stage, schedule.ranks() - 1);
  for (int other = 0; other < schedule.micro_batches(); ++other) {
    if (const auto place = schedule.find({stage, Kind::forward, other})) rank = place->rank;
  }
  const Place end{rank, schedule.tasks(rank).back().column + 1};
  throw UserError(fmt::format("{}: {} is missing", at(name, end), text_of(missing)));
}

// The forward is at `forward`; is there one backward, and on the same rank?
void check_backward(const CheckedSchedule& schedule, std::string_view name, const Action& action, Place forward) {
  const auto& [stage, kind, micro_batch] = action;
  const Action whole{stage, Kind::backward, micro_batch}, input{stage, Kind::input_gradient, micro_batch},
      weight{stage, Kind::weight_gradient, micro_batch};
  const auto whole_place = schedule.find(whole), input_place = schedule.find(input),
             weight_place = schedule.find(weight);
  if (!whole_place && !input_place && weight_place) tell_missing(schedule, name, input);
  require(whole_place || input_place, "{}: {} has no backward: {}, or {} and {}, is missing", at(name, forward),
          text_of(action), text_of(whole), text_of(input), text_of(weight));
  require(whole_place || weight_place, "{}: {} has no second half: {} is missing",
          at(name, input_place.value_or(forward)), text_of(input), text_of(weight));
  for (const auto& [half, place] : {std::pair(input, input_place), std::pair(weight, weight_place)}) {
    require(!whole_place || !place, "{}: {} is a second backward, beside {} in {}", at(name, place.value_or(forward)),
            text_of(half), text_of(whole), text_of(whole_place.value_or(forward)));
  }
  for (const auto& [other, place] :
       {std::pair(whole, whole_place), std::pair(input, input_place), std::pair(weight, weight_place)}) {
    require(!place || place->rank == forward.rank, "{}: {} is on another rank than {} in {}, which keeps what it needs",
            at(name, place.value_or(forward)), text_of(other), text_of(action), text_of(forward));
  }
}

// What has happened to a stage's parameters and gradients on a rank.
struct Sharding {
  bool is_used = false;  // UNSHARD stands somewhere in the row
  bool is_whole = false;
  bool is_reduced = false;
  bool computes = false;
};

void check_compute(const Action& action, const Sharding& stage, const std::string& place) {
  require(!stage.is_used || stage.is_whole, "{}: {} cannot start: stage {} is sharded; put {}UNSHARD before it", place,
          text_of(action), action.stage, action.stage);
  require(!stage.is_reduced || !action.gives_weight_gradient(),
          "{}: {} comes too late: the gradients of stage {} are reduced already; move {}REDUCE_GRAD behind it", place,
          text_of(action), action.stage, action.stage);
}

void apply(const Action& action, Sharding& stage, const std::string& place) {
  require(stage.computes, "{}: {} is of a stage on which this rank computes nothing", place, text_of(action));
  if (action.kind == Kind::reduce_grad) {
    require(!stage.is_reduced, "{}: {} is there a second time", place, text_of(action));
    stage.is_reduced = true;
    return;
  }
  const bool becomes_whole = action.kind == Kind::unshard;
  require(stage.is_whole != becomes_whole, "{}: {} cannot start: stage {} is {} already", place, text_of(action),
          action.stage, becomes_whole ? "unsharded" : "sharded");
  stage.is_whole = becomes_whole;
}

}  // namespace

void check_ranks(const CheckedSchedule& schedule, std::string_view name) {
  require(schedule.ranks() > 0, "{} has no rows; a row lists a rank's actions, like 0F0,0B0", name);
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& tasks = schedule.tasks(rank);
    const bool computes =
        std::any_of(tasks.begin(), tasks.end(), [](const Task& task) { return !task.action.is_of_whole_stage(); });
    require(computes, "{}: the rank computes nothing; remove the row or give it a stage", at(name, {rank, 0}));
  }
}

void check_micro_batches(const CheckedSchedule& schedule, std::string_view name) {
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    for (int micro_batch = 0; micro_batch < schedule.micro_batches(); ++micro_batch) {
      const Action forward{stage, Kind::forward, micro_batch};
      const auto place = schedule.find(forward);
      if (!place) tell_missing(schedule, name, forward);
      check_backward(schedule, name, forward, *place);
    }
  }
}

void check_sharding(const CheckedSchedule& schedule, std::string_view name) {
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    std::map<int, Sharding> stages;
    for (const Task& task : schedule.tasks(rank)) {
      Sharding& stage = stages[task.action.stage];
      stage.is_used |= task.action.kind == Kind::unshard;
      stage.computes |= !task.action.is_of_whole_stage();
    }
    for (const Task& task : schedule.tasks(rank)) {
      Sharding& stage = stages[task.action.stage];
      const std::string place = at(name, {rank, task.column});
      task.action.is_of_whole_stage() ? apply(task.action, stage, place) : check_compute(task.action, stage, place);
    }
  }
}

std::vector<CheckedSchedule::Turn> order_of(const CheckedSchedule& schedule, std::string_view name) {
  std::vector<CheckedSchedule::Turn> order;
  Progress done(schedule.ranks(), 0);
  const auto is_over = [&](int rank) { return done[rank] == schedule.tasks(rank).size(); };
  for (bool goes_on = true; goes_on;) {
    goes_on = false;
    for (int rank = 0; rank < schedule.ranks(); ++rank) {
      while (!is_over(rank) && !unmet_need(schedule, rank, done)) {
        order.push_back({rank, done[rank]++});
        goes_on = true;
      }
    }
  }
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    if (!is_over(rank)) tell_cycle(schedule, name, done);
  }
  return order;
}

}  // namespace ninefold::pipeline
