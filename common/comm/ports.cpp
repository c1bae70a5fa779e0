#include "common/comm/ports.h"

#include <algorithm>

#include "common/base/check.h"

namespace ninefold {

void Ports::arrange(const std::vector<MeshDimension>& dimensions) {
  cluster_.require_fits(dimensions);
  expect(dimensions.size() <= 32, "a mesh of {} dimensions has more ports than bits", dimensions.size());
  for (const Line& line : lines_) {
    expect(line.sending.unbooked.empty() && line.receiving.unbooked.empty(),
           "the mesh changes while messages are under way in virtual time");
  }
  strides_.assign(dimensions.size(), 1);
  lines_.assign(dimensions.size(), {});
  for (size_t i = dimensions.size(); i-- > 0;) {
    if (i + 1 < dimensions.size()) strides_[i] = strides_[i + 1] * dimensions[i + 1].size;
    const auto link = cluster_.links.find(dimensions[i].name);
    if (link != cluster_.links.end()) lines_[i].link = link->second;
  }
}

// Ranks that agree in the coordinates of dimensions 0 … i lie in the same block of strides_[i] ranks.
size_t Ports::index_of(int peer) const {
  size_t index = 0;
  while (rank_ / strides_[index] == peer / strides_[index]) ++index;
  return index;
}

}  // namespace ninefold
