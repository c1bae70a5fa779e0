// One collective on data of a given size that can be run again and again, on a group or by MPI's own blocking call, and
// whose result can be checked. The data are exactly representable: the check has no tolerance.
#pragma once

#include <functional>

#include "common/comm/group.h"

namespace ninefold::collectives {

class Exercise {
 public:
  // About `bytes` in all: rounded up to whole elements, the same number for each rank where tensors are made of parts.
  // `in_place`: the own part of input and output are the same memory.
  Exercise(const Group& group, Operation operation, ReduceOp op, Dtype dtype, int64_t bytes, bool in_place);

  // broadcast and reduce of a group are in place, all_to_all is not; the others are both.
  static bool exists(Operation operation, bool in_place);

  // Elements of a rank's part, or of the whole where there are no parts; and the whole in bytes.
  int64_t count() const { return count_; }
  int64_t bytes() const { return bytes_; }

  // Brings the input back and spoils the output.
  void fill() const;
  // The group has the ranks of the one that the exercise was made with.
  void run_on(const Group& group) const;
  // MPI's blocking call, where MPI knows the type.
  bool exists_on_mpi() const { return mpi_ != nullptr; }
  void run_on_mpi() const { mpi_(); }
  // Elements of this rank's result that are not what they should be, after `fill` and one run.
  int64_t wrong() const;

 private:
  bool reduces() const { return Call{.operation = operation_}.reduces(); }
  // Element i of the whole data that `rank` contributes, and of this rank's result.
  float contributed(int rank, int64_t i) const;
  float expected(int64_t i) const;

  Group group_;
  Operation operation_;
  ReduceOp op_;
  int64_t count_, bytes_;
  Tensor in_, out_;
  std::function<void()> mpi_;
};

// Where busbw differs from algbw (bytes / time): the share of the data that crosses the slowest link in the best
// algorithm. (nccl-tests, doc/PERFORMANCE.md)
double bus_factor(Operation operation, int ranks);

}  // namespace ninefold::collectives
