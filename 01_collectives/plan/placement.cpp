#include "01_collectives/plan/placement.h"

#include <algorithm>

#include "01_collectives/plan/simulate.h"

namespace ninefold::collectives {
namespace {

class Placer {
 public:
  Placer(const Plan& plan, const Part& part)
      : plan_(plan), operation_(part.operation), rank_(part.rank), ranks_(part.ranks), root_(part.root) {
    for (int chunk = 0; chunk < plan.chunks; ++chunk) {
      where_.push_back({part.in_place && belongs_in_out(chunk) ? Space::out : Space::in});
    }
  }

  PlacedPlan run() {
    result_.chunks = plan_.chunks;
    if (const int own = own_result(); own >= 0 && where_[own].space == Space::in) result_.kept = own;
    for (step_ = 0; step_ < static_cast<int>(plan_.steps.size()); ++step_) {
      std::vector<PlacedAction> placed_step;
      for (const Action& action : plan_.steps[step_]) placed_step.push_back(place(action));
      for (const PlacedAction& placed : placed_step) move(placed);
      // What others wait for comes first.
      std::stable_partition(placed_step.begin(), placed_step.end(),
                            [](const PlacedAction& placed) { return placed.action.kind == Action::Kind::send; });
      if (result_.kept >= 0) where_[result_.kept] = {Space::out};
      result_.most_actions = std::max(result_.most_actions, static_cast<int>(placed_step.size()));
      result_.steps.push_back(std::move(placed_step));
    }
    result_.slots = static_cast<int>(busy_until_.size());
    return std::move(result_);
  }

 private:
  // The chunk that this rank has from the beginning and that is part of its result; -1 if there is none.
  int own_result() const {
    if (operation_ == Operation::all_gather) return rank_;
    if (operation_ == Operation::all_to_all) return chunk_between(rank_, rank_, ranks_);
    if (operation_ == Operation::broadcast && rank_ == root_) return 0;
    return -1;
  }

  bool belongs_in_out(int chunk) const {
    switch (operation_) {
      case Operation::reduce:
        return rank_ == root_;
      case Operation::reduce_scatter:
        return chunk == rank_;
      case Operation::all_to_all:
        return chunk % ranks_ == rank_;
      default:
        return true;
    }
  }

  PlacedAction place(const Action& action) {
    PlacedAction placed{.action = action};
    const int first = action.chunks.first, count = action.chunks.count;
    placed.is_packed = first + count > plan_.chunks;
    placed.own = where_[first];
    if (action.kind == Action::Kind::send) {
      placed.message = placed.is_packed ? take_slots(count, step_) : where_[first];
    } else if (action.kind == Action::Kind::receive) {
      placed.message = placed.is_packed ? take_slots(count, step_) : Place{Space::out};
    } else if (belongs_in_out(first)) {
      placed.target = {Space::out};
      placed.message = receives_in_place(placed) ? placed.target : take_slots(count, step_);
    } else {
      placed.target = placed.message = take_slots(count, last_use_after(step_, action.chunks));
    }
    return placed;
  }

  // What arrives may lie where the sum will be, unless the own version is there.
  bool receives_in_place(const PlacedAction& placed) const {
    return placed.action.kind == Action::Kind::reduce && placed.own.space == Space::in;
  }

  // After the step, received chunks are elsewhere.
  void move(const PlacedAction& placed) {
    if (placed.action.kind == Action::Kind::send) return;
    for (const int chunk : members(placed.action.chunks, plan_.chunks)) {
      where_[chunk] = placed.action.adds() ? placed.target : Place{Space::out};
    }
  }

  int last_use_after(int step, Chunks chunks) const {
    int last = step;
    for (int later = step + 1; later < static_cast<int>(plan_.steps.size()); ++later) {
      for (const Action& action : plan_.steps[later]) {
        if (action.chunks == chunks) last = later;
      }
    }
    return last;
  }

  // Neighbouring slots that hold nothing that is still needed, kept up to and including step `until`.
  Place take_slots(int count, int until) {
    int first = 0;
    for (int slot = 0; slot < first + count; ++slot) {
      if (slot == static_cast<int>(busy_until_.size())) busy_until_.push_back(-1);
      if (busy_until_[slot] >= step_) first = slot + 1;
    }
    std::fill_n(busy_until_.begin() + first, count, until);
    return {Space::scratch, first};
  }

  const Plan& plan_;
  Operation operation_;
  int rank_, ranks_, root_;
  int step_ = 0;
  std::vector<Place> where_;     // of each chunk: the own version
  std::vector<int> busy_until_;  // of each slot: the last step that needs it
  PlacedPlan result_;
};

}  // namespace

PlacedPlan placed(const Plan& plan, const Part& part) { return Placer(plan, part).run(); }

}  // namespace ninefold::collectives
