// What a training run does with the routing of its mixtures of experts: statistics over all ranks, the check against
// the serial model's own choices, and the lines that tell of it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/comm/group.h"
#include "common/nn/model.h"
#include "common/nn/routing.h"
#include "common/train/options.h"
#include "common/train/task.h"

namespace ninefold {

// Whether the model has a router at all.
bool has_routers(Model& model);

// The records of all ranks of `group`, whose tokens differ, added up: loads, dropped tokens, losses. All ranks call it.
RoutingRecord summed(const Group& group, const RoutingRecord& record);
// The choices of all ranks, on rank 0; nothing on the others. All ranks call it.
RoutingRecord gathered_choices(const Group& group, const RoutingRecord& record);

// Moves the biases of all routers against the loads of a step's global batch.
void update_router_biases(Model& model, const RoutingRecord& loads);
// The values of all buffers, one after the other.
std::vector<float> buffer_values(Model& model);
void set_buffer_values(Model& model, const std::vector<float>& values);

// Peak bytes of activations of a step whose plans had so many rows, by the task's formula.
int64_t activation_bytes(const Task& task, const TrainOptions& options, const RoutingRecord& routing);

// A token may be routed otherwise than the serial model would where the scores differ by no more than rounding does.
double largest_fair_gap(Dtype compute);
// "step 3: sample 2, position 17 is routed otherwise in layer 0: a score gap of 3.1e-07", a line each.
std::string differences_text(int64_t step, const std::vector<RoutingRecord::Difference>& differences);

// Columns for the line of a step: imbalance, dropped share, balancing loss; and their heading.
std::string routing_heading();
std::string routing_columns(const RoutingRecord& routing);
// A table of the tokens that each expert of each layer got.
std::string load_table(const RoutingRecord& routing);
nlohmann::ordered_json routing_json(const RoutingRecord& routing);

}  // namespace ninefold
