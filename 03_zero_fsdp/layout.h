// Where a unit's parameters lie in its flat buffer, and which part of the buffer each rank owns: pure data, the same
// for buffers of values, of gradients and of optimizer states, whatever their types.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ninefold {

// Every parameter, and every rank's part, begins at a multiple of so many elements: 64 bytes for the narrowest type.
inline constexpr int64_t flat_alignment = 64;

// A unit is what is gathered and freed together. Its parameters lie one after the other in one flat buffer, which is
// cut into `ranks` equal shards: shard r belongs to rank r.
//
//   |w1          |w2       |norm |padding|      ranks = 2
//   |<-- rank 0 -->|<--- rank 1 -------->|
struct UnitLayout {
  std::string name;
  int ranks = 1;
  std::vector<int64_t> sizes;    // elements of each parameter
  std::vector<int64_t> offsets;  // where each begins
  int64_t padded = 0;            // elements of the whole buffer, a multiple of ranks * flat_alignment

  UnitLayout(std::string name, int ranks, std::vector<int64_t> sizes);

  // Elements of one shard.
  int64_t shard() const { return padded / ranks; }
  // Elements that no parameter uses.
  int64_t padding() const;

  // The part of parameter `index` that lies in the shard of `rank`.
  struct Part {
    int64_t in_parameter;  // its first element, counted from the parameter's
    int64_t in_shard;      // the same, counted from the shard's beginning
    int64_t length;        // 0 where the shard holds nothing of the parameter
  };
  Part part(size_t index, int rank) const;
};

}  // namespace ninefold
