#include "06_pipeline/runner/stage_units.h"

#include <algorithm>

#include "common/comm/world.h"

namespace ninefold::pipeline {
namespace {

UnitLayout layout_of(const std::string& name, int ranks, const std::vector<Parameter*>& parameters) {
  std::vector<int64_t> sizes;
  for (const Parameter* parameter : parameters) sizes.push_back(elements(parameter->layer_shape()));
  return UnitLayout(name, ranks, std::move(sizes));
}

}  // namespace

StageUnits::StageUnits(const StagedModel& model, const DataShards& groups, const ShardingPolicy& policy)
    : groups_(groups), policy_(policy) {
  const Unit::Whole whole{.values = policy.stage < 3, .gradients = policy.stage < 2};
  for (int stage = 0; stage < model.stages(); ++stage) {
    if (!model.holds(stage)) continue;
    std::map<const Group*, std::vector<Parameter*>> by_group;
    std::vector<const Group*> order;
    for (Parameter* parameter : model.parameters_of(stage)) {
      const Group* const group = &groups_.shard.of(*parameter);
      if (by_group[group].empty()) order.push_back(group);
      by_group[group].push_back(parameter);
    }
    for (const Group* const group : order) {
      const std::vector<Parameter*>& parameters = by_group[group];
      const std::string name = group == order.front() ? fmt::format("stage {}", stage)
                                                      : fmt::format("stage {} over {}", stage, group->name());
      units_[stage].push_back(std::make_unique<Unit>(layout_of(name, group->size(), parameters), parameters,
                                                     groups_.of(*parameters.front()), policy, whole, model.device()));
    }
  }
}

void StageUnits::reduce(int stage) {
  for (const auto& unit : units_.at(stage)) unit->start_reduce();
  is_reducing_[stage] = true;
}

void StageUnits::finish_step() {
  for (const auto& [stage, units] : units_) {
    if (!is_reducing_[stage]) reduce(stage);
  }
  for_each([](Unit& unit, int) {
    unit.finish_reduce();
    unit.start_all_reduce();
  });
  for_each([](Unit& unit, int) { unit.finish_step(); });
  is_reducing_.clear();
}

void StageUnits::after_update() {
  if (gathers_by_schedule()) return;
  for_each([](Unit& unit, int) {
    unit.reshard();
    unit.unshard();
  });
}

void StageUnits::unshard_all() {
  for_each([](Unit& unit, int) { unit.unshard(); });
  for_each([](Unit& unit, int) { unit.wait_unsharded(); });
}

void StageUnits::reshard_all() {
  if (gathers_by_schedule()) for_each([](Unit& unit, int) { unit.reshard(); });
}

// Follows the rank's row. Whole gradients of ZeRO 2 and 3 are there from the first action that may write some to the
// end of the step, and while they are summed, what is sent where its type is another one, and the part of the sum where
// it is no gradient yet.
int64_t StageUnits::gathered_peak(const CheckedSchedule& schedule, int rank) const {
  const ShardingPolicy::Types& types = policy_.types;
  const bool converts = types.reduce != types.gradient, is_apart = converts || policy_.offloads_gradients();
  int64_t now = 0, peak = 0;
  std::map<int, bool> has_gradients, is_reduced;
  const auto begin_reduction = [&](int stage) {
    for (const auto& unit : units_.at(stage)) {
      const UnitLayout& layout = unit->layout();
      now += ((converts ? layout.padded : 0) + (is_apart ? layout.shard() : 0)) * size_of(types.reduce);
    }
    is_reduced[stage] = true;
    peak = std::max(peak, now);
  };
  for (const auto& [action, column, receives, sends] : schedule.tasks(rank)) {
    int64_t padded = 0;
    for (const auto& unit : units_.at(action.stage)) padded += unit->layout().padded;
    if (action.kind == Kind::unshard) now += padded * size_of(types.compute);
    if (action.kind == Kind::reshard) now -= padded * size_of(types.compute);
    if (action.kind == Kind::reduce_grad) begin_reduction(action.stage);
    const bool writes = policy_.stage >= 2 && (action.gives_input_gradient() || action.gives_weight_gradient());
    if (writes && !std::exchange(has_gradients[action.stage], true)) now += padded * size_of(types.gradient);
    peak = std::max(peak, now);
  }
  for (const auto& [stage, units] : units_) {
    if (!is_reduced[stage]) begin_reduction(stage);
  }
  return peak;
}

void StageUnits::predict_memory(MemoryByKind& bytes, const CheckedSchedule& schedule, int rank) const {
  const auto of = [&](MemoryKind kind) -> int64_t& { return bytes[static_cast<size_t>(kind)]; };
  const ShardingPolicy::Types& types = policy_.types;
  of(MemoryKind::parameters) = of(MemoryKind::gradients) = 0;
  for_each([&](const Unit& unit, int) {
    const UnitLayout& layout = unit.layout();
    of(MemoryKind::parameters) +=
        policy_.stage == 3 ? layout.shard() * size_of(types.stored) : layout.padded * size_of(types.compute);
    of(MemoryKind::gradients) += (policy_.stage >= 2 ? layout.shard() : layout.padded) * size_of(types.gradient);
  });
  of(MemoryKind::gathered) = gathered_peak(schedule, rank);
  if (policy_.offloads_values()) of(MemoryKind::host) += std::exchange(of(MemoryKind::parameters), 0);
  if (policy_.offloads_gradients()) of(MemoryKind::host) += std::exchange(of(MemoryKind::gradients), 0);
  if (policy_.offloads_optimizer()) of(MemoryKind::host) += std::exchange(of(MemoryKind::optimizer), 0);
}

void StageUnits::predict_traffic(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank,
                                 int64_t steps) const {
  std::map<int, int64_t> gathers;  // in a step, by stage
  for (const Task& task : schedule.tasks(rank)) gathers[task.action.stage] += task.action.kind == Kind::unshard;
  const ShardingPolicy::Types& types = policy_.types;
  for_each([&](const Unit& unit, int stage) {
    const Group &shards = unit.groups().shard, &replicas = unit.groups().replicate;
    const UnitLayout& layout = unit.layout();
    if (shards.size() > 1) {
      const int64_t calls = gathers_by_schedule() ? gathers[stage] : 1;
      ledger.predict(shards.name(), Operation::all_gather, steps * calls,
                     shards.all_gather_volume(layout.padded, types.compute));
      ledger.predict(shards.name(), Operation::reduce_scatter, steps,
                     shards.reduce_scatter_volume(layout.padded, types.reduce));
    }
    if (replicas.size() > 1) {
      ledger.predict(replicas.name(), Operation::all_reduce, steps,
                     replicas.all_reduce_volume(layout.shard(), types.gradient));
    }
  });
}

Numerics StageUnits::numerics() const {
  const ShardingPolicy::Types& types = policy_.types;
  const bool rounds_alike =
      types.reduce == Dtype::f32 && (types.gradient == Dtype::f32 || groups_.replicate.all().size() == 1);
  const bool in_order = groups_.shard.all().sums_in_rank_order() && groups_.replicate.all().sums_in_rank_order();
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
