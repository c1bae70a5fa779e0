// What running a schedule will cost and give, from its table: memory, messages, and the order of its sums.
#pragma once

#include <functional>
#include <vector>

#include "04_model_parallel/staged_model.h"
#include "06_pipeline/schedule/checked.h"
#include "common/comm/traffic.h"
#include "common/train/numerics.h"

namespace ninefold::pipeline {

// The ranks that hold each stage.
RanksOfStages ranks_of_stages(const CheckedSchedule& schedule);

// Most bytes of activations that the rank holds at a time. `stages` tells what each of its stages keeps of a
// micro-batch.
using ActivationsOfStage = std::function<const StageActivations&(int stage, int micro_batch)>;
int64_t activation_peak(const CheckedSchedule& schedule, int rank, const ActivationsOfStage& stages);

// Books the rank's sends: a message for each task that has one.
void predict_messages(TrafficLedger& ledger, const CheckedSchedule& schedule, int rank, const StagedModel& model,
                      int64_t steps);

// Whether every copy of a stage adds its gradients in the order of the micro-batches, and either there is one copy or
// the first half of the micro-batches goes through one and the second through the other. Then the sums are those of a
// serial run: of one buffer, or of one for each of `directions_of` halves.
bool adds_in_order(const CheckedSchedule& schedule);
// 2 where stages have two copies, else 1.
int directions_of(const CheckedSchedule& schedule);

}  // namespace ninefold::pipeline
