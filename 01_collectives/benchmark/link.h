// What the links of this machine take for a message, as the α–β model has it: latency + bytes / bandwidth.
#pragma once

#include <string>
#include <vector>

#include "common/comm/cluster.h"
#include "common/comm/mesh.h"

namespace ninefold::collectives {

struct MessageTime {
  int64_t bytes;
  double seconds;
};

// The latency and bandwidth with the least sum of relative errors, each taken by its size and not by its square: a few
// sizes that behave differently hardly move the result. At least two sizes; UserError where larger messages take no
// longer.
Link fit_link(const std::vector<MessageTime>& times);

// Half the time of a round trip between the first two ranks of `group`, the median over `rounds`, for each size. Both
// call it; the result is rank 0's.
std::vector<MessageTime> measure_messages(const Group& group, const std::vector<int64_t>& sizes, int rounds);

// As --cluster reads it: "dp_replicate=9.87GB/s,1.23us".
std::string description_of(const std::string& dimension, const Link& link);

}  // namespace ninefold::collectives
