// PyTorch on the same work: its DDP, FSDP2, tensor parallelism and 1F1B over gloo, each with the best of its options.
#pragma once

#include <string>
#include <vector>

#include "09_combined_3d/comparison/results.h"

namespace ninefold::comparison {

class PyTorch {
 public:
  // Finds the interpreter: that which the variable PYTHON names, or python3. Throws UserError where it has no torch
  // with torch.distributed.
  PyTorch();

  // Adds a row for its serial model, and one for each technique, against that.
  void add_rows(std::vector<Row>& rows, int ranks, const Workload& work, int64_t steps) const;

 private:
  std::string python_, version_;
};

}  // namespace ninefold::comparison
