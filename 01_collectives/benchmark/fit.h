// What `01/bench --fit` does: measures the link of each mesh dimension and describes them as --cluster reads them.
#pragma once

#include <nlohmann/json.hpp>

#include "01_collectives/benchmark/options.h"
#include "common/comm/mesh.h"

namespace ninefold::collectives {

// Prints the times of messages between rank 0 and its neighbour along each dimension, which the other ranks wait for,
// and the line for --cluster. Returns {"fit": {dimension: {latency_s, bandwidth_b_s, messages}}, "cluster": line}.
nlohmann::ordered_json fit_links(const Mesh& mesh, const BenchOptions& options);

}  // namespace ninefold::collectives
