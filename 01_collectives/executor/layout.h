// Which elements a chunk is, in the tensors of a call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "01_collectives/plan/placement.h"

namespace ninefold::collectives {

// Everything in elements. Only chunks that the rank sends or receives have a size that is known.
class Layout {
 public:
  // `chunks` is the number of the plan's chunks. The call may be on meta tensors.
  Layout(const Call& call, int rank, int ranks, int chunks);

  int64_t size(int chunk) const;
  // Where the chunk begins in the input or in the output.
  int64_t begin(Space space, int chunk) const;
  // The size of the largest chunk. The same on all ranks, but for uneven all_to_all.
  int64_t largest() const;

 private:
  // The whole is cut into equal chunks, the first ones an element longer where it does not divide.
  bool is_cut() const { return part_ < 0; }
  int64_t cut(int chunk) const { return chunk * shorter_ + std::min<int64_t>(chunk, longer_chunks_); }
  bool is_uneven() const { return !in_begins_.empty(); }

  Operation operation_;
  int rank_, ranks_;
  int64_t shorter_ = 0, longer_chunks_ = 0;  // elements of a shorter chunk, number of the longer ones
  int64_t part_ = -1;                        // elements of each rank's part, where the tensors are made of parts
  std::vector<int64_t> in_begins_{}, out_begins_{};  // of the parts for and from each rank, and the end
};

inline int64_t Layout::size(int chunk) const {
  if (is_cut()) return cut(chunk + 1) - cut(chunk);
  if (!is_uneven()) return part_;
  const int from = chunk / ranks_, to = chunk % ranks_;
  return from == rank_ ? in_begins_[to + 1] - in_begins_[to] : out_begins_[from + 1] - out_begins_[from];
}

inline int64_t Layout::begin(Space space, int chunk) const {
  if (is_cut()) return cut(chunk);
  if (operation_ == Operation::all_gather) return space == Space::in ? 0 : chunk * part_;
  if (operation_ == Operation::reduce_scatter) return space == Space::in ? chunk * part_ : 0;
  const int part = space == Space::in ? chunk % ranks_ : chunk / ranks_;
  if (is_uneven()) return space == Space::in ? in_begins_[part] : out_begins_[part];
  return part * part_;
}

}  // namespace ninefold::collectives
