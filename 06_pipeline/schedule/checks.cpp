#include "06_pipeline/schedule/checks.h"

#include <algorithm>

#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

// How far each rank has come: the number of its tasks that are done.
using Progress = std::vector<size_t>;

template <typename... Args>
[[noreturn]] void refuse(std::string_view name, Place place, fmt::format_string<Args...> text, Args&&... args) {
  throw UserError(fmt::format("{}, {}: {}", name, text_of(place), fmt::format(text, std::forward<Args>(args)...)));
}

Action next_action(const CheckedSchedule& schedule, int rank, const Progress& done) {
  return schedule.tasks(rank)[done[rank]].action;
}

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
  for (const Action& need : schedule.needs(next_action(schedule, rank, done))) {
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

  std::string chain;
  int rank = first;
  do {
    const Action need = *unmet_need(schedule, rank, done);
    const Place place = *schedule.find(need);
    chain += fmt::format("{} {} in {}", chain.empty() ? "it needs" : ", which needs", text_of(need), text_of(place));
    rank = place.rank;
    const Place blocked = next_place(schedule, rank, done);
    if (blocked == place) continue;
    chain += fmt::format(", which comes after {} in {}", text_of(next_action(schedule, rank, done)), text_of(blocked));
  } while (rank != first);
  refuse(name, next_place(schedule, first, done), "{} cannot start: {}: a cycle, in which nothing can start",
         text_of(next_action(schedule, first, done)), chain);
}

// Told at the place of an action that waits for the missing one, or else at the end of a row where it could be.
[[noreturn]] void tell_missing(const CheckedSchedule& schedule, std::string_view name, const Action& missing) {
  const auto& [stage, kind, micro_batch] = missing;
  const Action neighbour =
      kind == Kind::forward ? Action{stage + 1, kind, micro_batch} : schedule.input_gradient(stage - 1, micro_batch);
  for (const Action& waiting :
       {schedule.input_gradient(stage, micro_batch), Action{stage, Kind::weight_gradient, micro_batch}, neighbour}) {
    const auto place = schedule.find(waiting);
    if (!place) continue;
    refuse(name, *place, "{} cannot start: it needs {}, which is missing", text_of(waiting), text_of(missing));
  }
  int rank = std::min(stage, schedule.ranks() - 1);
  for (int other = 0; other < schedule.micro_batches(); ++other) {
    if (const auto place = schedule.find({stage, Kind::forward, other})) rank = place->rank;
  }
  refuse(name, {rank, schedule.tasks(rank).back().column + 1}, "{} is missing", text_of(missing));
}

// An action that a table may have, and where.
struct Located {
  Action action;
  std::optional<Place> place;
};

// The micro-batch of `forward`, which is at `place`, has one backward on the stage, and has it on the same rank.
void check_backward(const CheckedSchedule& schedule, std::string_view name, const Action& forward, Place place) {
  const auto locate = [&](Kind kind) {
    const Action action{forward.stage, kind, forward.micro_batch};
    return Located{action, schedule.find(action)};
  };
  const Located whole = locate(Kind::backward), input = locate(Kind::input_gradient),
                weight = locate(Kind::weight_gradient);
  if (!whole.place && !input.place && !weight.place) {
    refuse(name, place, "{} has no backward: {}, or {} and {}, is missing", text_of(forward), text_of(whole.action),
           text_of(input.action), text_of(weight.action));
  }
  if (!whole.place && !input.place) tell_missing(schedule, name, input.action);
  if (!whole.place && !weight.place) {
    refuse(name, *input.place, "{} has no second half: {} is missing", text_of(input.action), text_of(weight.action));
  }
  for (const Located& half : {input, weight}) {
    if (!whole.place || !half.place) continue;
    refuse(name, *half.place, "{} is a second backward, beside {} in {}", text_of(half.action), text_of(whole.action),
           text_of(*whole.place));
  }
  for (const Located& other : {whole, input, weight}) {
    if (!other.place || other.place->rank == place.rank) continue;
    refuse(name, *other.place, "{} is on another rank than {} in {}, which keeps what it needs", text_of(other.action),
           text_of(forward), text_of(place));
  }
}

// What has happened to a stage's parameters and gradients on a rank.
struct Sharding {
  bool is_used = false;  // UNSHARD stands somewhere in the row
  bool is_whole = false;
  bool is_reduced = false;
  bool computes = false;
};

void check_compute(const Action& action, Sharding& stage, std::string_view name, Place place) {
  if (stage.is_used && !stage.is_whole) {
    refuse(name, place, "{} cannot start: stage {} is sharded; put {}UNSHARD before it", text_of(action), action.stage,
           action.stage);
  }
  if (stage.is_reduced && action.gives_weight_gradient()) {
    refuse(name, place,
           "{} comes too late: the gradients of stage {} are reduced already; move {}REDUCE_GRAD behind it",
           text_of(action), action.stage, action.stage);
  }
}

void apply(const Action& action, Sharding& stage, std::string_view name, Place place) {
  if (!stage.computes) refuse(name, place, "{} is of a stage on which this rank computes nothing", text_of(action));
  if (action.kind == Kind::reduce_grad) {
    if (stage.is_reduced) refuse(name, place, "{} is there a second time", text_of(action));
    stage.is_reduced = true;
    return;
  }
  const bool becomes_whole = action.kind == Kind::unshard;
  if (stage.is_whole == becomes_whole) {
    refuse(name, place, "{} cannot start: stage {} is {} already", text_of(action), action.stage,
           becomes_whole ? "unsharded" : "sharded");
  }
  stage.is_whole = becomes_whole;
}

}  // namespace

void check_ranks(const CheckedSchedule& schedule, std::string_view name) {
  require(schedule.ranks() > 0, "{} has no rows; a row lists a rank's actions, like 0F0,0B0", name);
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const auto& tasks = schedule.tasks(rank);
    const bool computes =
        std::any_of(tasks.begin(), tasks.end(), [](const Task& task) { return !task.action.is_of_whole_stage(); });
    if (!computes) refuse(name, {rank, 0}, "the rank computes nothing; remove the row or give it a stage");
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
      (task.action.is_of_whole_stage() ? apply : check_compute)(task.action, stage, name, {rank, task.column});
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
