// What a user may decide about a pipeline.
#pragma once

#include <string>

#include "03_zero_fsdp/policy.h"
#include "06_pipeline/generators/choice.h"
#include "06_pipeline/schedule/checked.h"

namespace ninefold::pipeline {

struct PipelineOptions {
  ScheduleChoice choice;
  std::string layers_per_stage;

  void declare(Options& options);
  // Throws UserError where options contradict each other.
  void validate(const Options& given, const TrainOptions& train) const;

  // The micro-batches that nobody asked for otherwise: as many as the user's table has, or up to 8 that divide the
  // batch of each of `data_ranks`.
  void settle_micro_batches(TrainOptions& train, int data_ranks) const;
  // The table for so many ranks and the micro-batches that were settled, with the actions of whole stages that
  // policy.stage and policy.reshard call for, unless the user's own has some. Throws UserError where it does not fit.
  CheckedSchedule schedule(int ranks, int micro_batches, const ShardingPolicy& policy) const;
};

}  // namespace ninefold::pipeline
