// The rules of a schedule. Every function throws UserError that names the table, row and column.
#pragma once

#include <string_view>
#include <vector>

#include "06_pipeline/schedule/checked.h"

namespace ninefold::pipeline {

// No rank is without an action.
void check_ranks(const CheckedSchedule& schedule, std::string_view name);

// Every stage has every micro-batch's forward and backward, all on one rank.
void check_micro_batches(const CheckedSchedule& schedule, std::string_view name);

// UNSHARD, RESHARD and REDUCE_GRAD stand where they make sense.
void check_sharding(const CheckedSchedule& schedule, std::string_view name);

// CheckedSchedule::order(). Throws where there is none, because some action waits for itself through others.
std::vector<CheckedSchedule::Turn> order_of(const CheckedSchedule& schedule, std::string_view name);

}  // namespace ninefold::pipeline
