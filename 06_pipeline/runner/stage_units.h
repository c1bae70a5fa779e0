// The stages of a rank as chapter 03's units, whose states are divided over data-parallel ranks. REDUCE_GRAD reduces
// the gradients of a stage. Under ZeRO 3 UNSHARD gathers its parameters and RESHARD gives them up; under ZeRO 1 and 2
// they stay whole, and are gathered once a step, after they have been updated.
#pragma once

#include <map>
#include <memory>

#include "03_zero_fsdp/sharding.h"
#include "04_model_parallel/staged_model.h"
#include "06_pipeline/schedule/checked.h"
#include "common/tensor/memory.h"
#include "common/train/numerics.h"

namespace ninefold::pipeline {

class StageUnits {
 public:
  // To be called before `materialize`, for the stages that this rank holds. Everything passed outlives it.
  StageUnits(const StagedModel& model, const DataShards& groups, const ShardingPolicy& policy);

  void unshard(int stage) {
    for (const auto& unit : units_.at(stage)) unit->unshard();
  }
  // Before the stage computes.
  void wait_unsharded(int stage) {
    for (const auto& unit : units_.at(stage)) unit->wait_unsharded();
  }
  void reshard(int stage) {
    for (const auto& unit : units_.at(stage)) unit->reshard();
  }
  void reduce(int stage);
  // After the last task of the step: what has not been reduced is, and all reductions end.
  void finish_step();
  // After the optimizer has updated the shards, or a checkpoint has filled them.
  void after_update();
  // All stages at once, for an evaluation.
  void unshard_all();
  void reshard_all();

  // Bytes of parameters and gradients, most that is gathered while a rank does the schedule's tasks, and of the host,
  // to which what is offloaded moves, the optimizer's bytes included.
  void predict_memory(MemoryByKind& bytes, const CheckedSchedule& schedule, int rank) const;
  // An all_gather for each UNSHARD (ZeRO 1 and 2: for each stage of the rank) and a reduce_scatter for each stage, and
  // an all_reduce of its shard over the replicas, in each of `steps` steps.
  void predict_traffic(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank, int64_t steps) const;
  Numerics numerics() const;
  SumGrouping grouping() const {
    return {.inner_ranks = groups_.shard.all().size(), .in_f32 = policy_.types.reduce == Dtype::f32};
  }

 private:
  bool gathers_by_schedule() const { return policy_.stage == 3; }
  int64_t gathered_peak(const CheckedSchedule& schedule, int rank) const;
  // Calls visit(unit, stage) for all of this rank.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const auto& [stage, units] : units_) {
      for (const auto& unit : units) visit(*unit, stage);
    }
  }
  DataShards groups_;
  ShardingPolicy policy_;
  // By stage: one, or one for each group over which its parameters are divided.
  std::map<int, std::vector<std::unique_ptr<Unit>>> units_;
  std::map<int, bool> is_reducing_;  // by stage
};

// Whether the table has UNSHARD for the stage, on every rank that holds it.
bool is_unsharded(const CheckedSchedule& schedule, int stage);
// Whether it has any such action at all.
bool has_sharded_stages(const CheckedSchedule& schedule);

}  // namespace ninefold::pipeline
