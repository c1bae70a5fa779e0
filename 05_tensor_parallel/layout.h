// How a matrix [rows, features] lies on the ranks of a group.
#pragma once

#include <string_view>

namespace ninefold {

enum class Layout {
  replicate,  // all of it on every rank
  rows,       // rank r has the r-th block of rows: Shard(0)
  columns     // rank r has the r-th block of features: Shard(1)
};

// As PyTorch's DTensor calls it.
inline std::string_view name_of(Layout layout) {
  return layout == Layout::replicate ? "Replicate" : layout == Layout::rows ? "Shard(0)" : "Shard(1)";
}

}  // namespace ninefold
