// Over which ranks the gradient of a parameter is a sum.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/comm/mesh.h"
#include "common/nn/model.h"

namespace ninefold {

// The ranks with other data. Where another technique has divided a parameter along one of their dimensions (experts,
// along ep), its layer computes with the data of all ranks along it, and its gradient is a sum along the others only.
class DataGroups {
 public:
  DataGroups() = default;
  // One group for all parameters.
  DataGroups(const Group& all) : all_(all) {}  // NOLINT(google-explicit-constructor)
  // Along these dimensions of the mesh; those that it does not have are left out. To be called when every other
  // technique has wrapped the layers of the model. All ranks call it.
  DataGroups(const Mesh& mesh, const std::vector<std::string>& dimensions, Model& model);

  const Group& all() const { return all_; }
  // It lives as long as this.
  const Group& of(const Parameter& parameter) const;

 private:
  Group all_;
  std::map<std::string, Group> without_;  // by the dimension that is left out
};

}  // namespace ninefold
