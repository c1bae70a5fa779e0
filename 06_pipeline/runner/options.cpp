#include "06_pipeline/runner/options.h"

#include <algorithm>

#include "06_pipeline/generators/sharded.h"
#include "06_pipeline/runner/stage_units.h"

namespace ninefold::pipeline {
namespace {

int64_t micro_batches_of(const Schedule& table) {
  int most = 0;
  for (const Row& row : table) {
    for (const auto& cell : row) most = std::max(most, cell ? cell->micro_batch + 1 : 0);
  }
  return most;
}

}  // namespace

void PipelineOptions::declare(Options& options) {
  choice.declare(options);
  options.add("--layers-per-stage", layers_per_stage, "like 2,3,3; otherwise the FLOPs are balanced");
}

void PipelineOptions::validate(const Options& given, const TrainOptions& train) const {
  choice.validate(given);
  require(!given.given("--micro-batches") || train.micro_batches > 0,
          "--micro-batches ({}) must be at least 1: a pipeline computes nothing without one", train.micro_batches);
}

void PipelineOptions::settle_micro_batches(TrainOptions& train, int data_ranks) const {
  if (train.micro_batches > 0 || train.micro_batch > 0) return;
  train.micro_batches = 8;
  while (train.local_batch(data_ranks) % train.micro_batches != 0) --train.micro_batches;
  if (choice.is_from_file()) train.micro_batches = micro_batches_of(choice.table(0, 0));
}

CheckedSchedule PipelineOptions::schedule(int ranks, int micro_batches, const ShardingPolicy& policy) const {
  const Schedule table = choice.table(ranks, micro_batches);
  require_size(table, ranks, micro_batches, choice.name());
  CheckedSchedule schedule(table, choice.name());
  const bool says_itself = has_sharded_stages(schedule);
  require(!says_itself || policy.reshard == Reshard::standard,
          "{} says by UNSHARD and RESHARD when stages are gathered; leave --reshard out", choice.name());
  if (policy.stage == 0 || says_itself) return schedule;
  return CheckedSchedule(
      policy.stage == 3 ? with_sharded_stages(table, policy.reshard == Reshard::always) : with_reduced_stages(table),
      choice.name());
}

}  // namespace ninefold::pipeline
