#include "06_pipeline/runner/stage_units.h"

#include <algorithm>

#include "common/comm/world.h"

namespace ninefold::pipeline {
namespace {

UnitLayout layout_of(int stage, int ranks, const std::vector<Parameter*>& parameters) {
  std::vector<int64_t> sizes;
  for (const Parameter* parameter : parameters) sizes.push_back(elements(parameter->layer_shape()));
  return UnitLayout(fmt::format("stage {}", stage), ranks, std::move(sizes));
}

}  // namespace

StageUnits::StageUnits(const StagedModel& model, const ShardGroups& groups, const ShardingPolicy::Types& types)
    : groups_(groups), types_(types) {
  const ShardingPolicy policy{.types = types};
  for (int stage = 0; stage < model.stages(); ++stage) {
    if (!model.holds(stage)) continue;
    const std::vector<Parameter*> parameters = model.parameters_of(stage);
    units_[stage] = std::make_unique<Unit>(layout_of(stage, groups.shard.size(), parameters), parameters, groups,
                                           policy, Unit::Whole{.values = false, .gradients = false}, model.device());
  }
}

void StageUnits::reduce(int stage) {
  units_.at(stage)->start_reduce();
  is_reducing_[stage] = true;
}

void StageUnits::finish_step() {
  for (const auto& [stage, unit] : units_) {
    if (!is_reducing_[stage]) reduce(stage);
  }
  for (const auto& [stage, unit] : units_) {
    unit->finish_reduce();
    unit->start_all_reduce();
  }
  for (const auto& [stage, unit] : units_) unit->finish_step();
  is_reducing_.clear();
}

void StageUnits::unshard_all() {
  for (const auto& [stage, unit] : units_) unit->unshard();
  for (const auto& [stage, unit] : units_) unit->wait_unsharded();
}

void StageUnits::reshard_all() {
  for (const auto& [stage, unit] : units_) unit->reshard();
}

// Follows the rank's row. Gradients are there from the first action that may write some to the end of the step, and
// while they are summed, what is sent where its type is another one, and the part of the sum where it is no gradient
// yet.
void StageUnits::predict_memory(MemoryByKind& bytes, const CheckedSchedule& schedule, int rank) const {
  const auto of = [&](MemoryKind kind) -> int64_t& { return bytes[static_cast<size_t>(kind)]; };
  of(MemoryKind::parameters) = of(MemoryKind::gradients) = 0;
  for (const auto& [stage, unit] : units_) {
    of(MemoryKind::parameters) += unit->layout().shard() * size_of(types_.stored);
    of(MemoryKind::gradients) += unit->layout().shard() * size_of(types_.gradient);
  }
  const bool converts = types_.reduce != types_.gradient;
  int64_t now = 0, peak = 0;
  std::map<int, bool> has_gradients, is_reduced;
  const auto begin_reduction = [&](int stage) {
    const UnitLayout& layout = units_.at(stage)->layout();
    if (converts) now += (layout.padded + layout.shard()) * size_of(types_.reduce);
    is_reduced[stage] = true;
    peak = std::max(peak, now);
  };
  for (const auto& [action, column, receives, sends] : schedule.tasks(rank)) {
    const int64_t padded = units_.at(action.stage)->layout().padded;
    if (action.kind == Kind::unshard) now += padded * size_of(types_.compute);
    if (action.kind == Kind::reshard) now -= padded * size_of(types_.compute);
    if (action.kind == Kind::reduce_grad) begin_reduction(action.stage);
    const bool writes = action.gives_input_gradient() || action.gives_weight_gradient();
    if (writes && !std::exchange(has_gradients[action.stage], true)) now += padded * size_of(types_.gradient);
    peak = std::max(peak, now);
  }
  for (const auto& [stage, unit] : units_) {
    if (!is_reduced[stage]) begin_reduction(stage);
  }
  of(MemoryKind::gathered) = peak;
}

void StageUnits::predict_traffic(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank,
                                 int64_t steps) const {
  for (const Task& task : schedule.tasks(rank)) {
    if (task.action.kind != Kind::unshard || groups_.shard.size() == 1) continue;
    const int64_t whole = units_.at(task.action.stage)->layout().padded;
    ledger.predict(groups_.shard.name(), Operation::all_gather, steps,
                   groups_.shard.all_gather_volume(whole, types_.compute));
  }
  for (const auto& [stage, unit] : units_) {
    if (groups_.shard.size() > 1) {
      ledger.predict(groups_.shard.name(), Operation::reduce_scatter, steps,
                     groups_.shard.reduce_scatter_volume(unit->layout().padded, types_.reduce));
    }
    if (groups_.replicate.size() > 1) {
      ledger.predict(groups_.replicate.name(), Operation::all_reduce, steps,
                     groups_.replicate.all_reduce_volume(unit->layout().shard(), types_.gradient));
    }
  }
}

Numerics StageUnits::numerics() const {
  const bool rounds_alike = types_.gradient == Dtype::f32 || groups_.replicate.size() == 1;
  const bool in_order = groups_.shard.sums_in_rank_order() && groups_.replicate.sums_in_rank_order();
  return rounds_alike && in_order ? Numerics::bit_identical : Numerics::bounded;
}

bool is_unsharded(const CheckedSchedule& schedule, int stage) {
  const std::vector<int> ranks = schedule.ranks_of(stage);
  return std::all_of(ranks.begin(), ranks.end(), [&](int rank) {
    const std::vector<Task>& tasks = schedule.tasks(rank);
    return std::any_of(tasks.begin(), tasks.end(), [&](const Task& task) {
      return task.action.stage == stage && task.action.kind == Kind::unshard;
    });
  });
}

bool has_sharded_stages(const CheckedSchedule& schedule) {
  return std::any_of(schedule.order().begin(), schedule.order().end(), [&](const CheckedSchedule::Turn& turn) {
    return schedule.tasks(turn.rank)[turn.task].action.is_of_whole_stage();
  });
}

}  // namespace ninefold::pipeline
