#include "02_ddp/data_groups.h"

#include <algorithm>

namespace ninefold {

DataGroups::DataGroups(const Mesh& mesh, const std::vector<std::string>& dimensions, Model& model)
    : all_(mesh.flatten(dimensions)) {
  for (const Parameter* parameter : parameters_of(model)) {
    for (const Placement::Shard& shard : parameter->placement.shards) {
      std::vector<std::string> others = mesh.arranged_with(shard.mesh_dimension, dimensions);
      const bool is_among = std::erase(others, shard.mesh_dimension) > 0;
      if (!is_among || without_.count(shard.mesh_dimension) > 0) continue;
      without_[shard.mesh_dimension] = mesh.flatten(others);
    }
  }
}

const Group& DataGroups::of(const Parameter& parameter) const {
  for (const Placement::Shard& shard : parameter.placement.shards) {
    const auto found = without_.find(shard.mesh_dimension);
    if (found != without_.end()) return found->second;
  }
  return all_;
}

}  // namespace ninefold
