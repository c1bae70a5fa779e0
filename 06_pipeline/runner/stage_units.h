// The stages of a rank as chapter 03's units: the parameters of a stage are divided over data-parallel ranks, gathered
// by UNSHARD, given up by RESHARD, and their gradients reduced by REDUCE_GRAD.
#pragma once

#include <map>
#include <memory>

#include "03_zero_fsdp/unit.h"
#include "04_model_parallel/staged_model.h"
#include "06_pipeline/schedule/checked.h"
#include "common/tensor/memory.h"
#include "common/train/numerics.h"

namespace ninefold::pipeline {

class StageUnits {
 public:
  // To be called before `materialize`, for the stages that this rank holds. Everything passed outlives it.
  StageUnits(const StagedModel& model, const ShardGroups& groups, const ShardingPolicy::Types& types);

  void unshard(int stage) { units_.at(stage)->unshard(); }
  // Before the stage computes.
  void wait_unsharded(int stage) { units_.at(stage)->wait_unsharded(); }
  void reshard(int stage) { units_.at(stage)->reshard(); }
  void reduce(int stage);
  // After the last task of the step: what has not been reduced is, and all reductions end.
  void finish_step();
  // All stages at once, for an evaluation.
  void unshard_all();
  void reshard_all();

  // Bytes of parameters and gradients owned, and most that is gathered while a rank does the schedule's tasks.
  void predict_memory(MemoryByKind& bytes, const CheckedSchedule& schedule, int rank) const;
  // An all_gather for each UNSHARD and a reduce_scatter for each stage of the rank, and an all_reduce of its shard over
  // the replicas, in each of `steps` steps.
  void predict_traffic(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank, int64_t steps) const;
  Numerics numerics() const;
  SumGrouping grouping() const { return {.inner_ranks = groups_.shard.size(), .in_f32 = true}; }

 private:
  ShardGroups groups_;
  ShardingPolicy::Types types_;
  std::map<int, std::unique_ptr<Unit>> units_;  // by stage
  std::map<int, bool> is_reducing_;             // by stage
};

// Whether the table has UNSHARD for the stage, on every rank that holds it.
bool is_unsharded(const CheckedSchedule& schedule, int stage);
// Whether it has any such action at all.
bool has_sharded_stages(const CheckedSchedule& schedule);

}  // namespace ninefold::pipeline
