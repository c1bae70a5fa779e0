// What the children of a model cost and hand on, found without computing anything: the model runs once on a device that
// has shapes only, and whose operations tell their FLOPs by formula.
#pragma once

#include <string>
#include <vector>

#include "common/train/task.h"

namespace ninefold {

struct ChildOnPaper {
  std::string name;
  double flops = 0;  // of a forward and backward of `samples`; the last child's with the loss
  Shape output;      // for `samples`
  Dtype type = Dtype::f32;
  bool has_parameters = false;
  int64_t row_blocks = 1;  // of so many equal ones, over ranks that share the child, one rank hands on one
};

// One entry a child of the task's model, in forward order, for micro-batches of `samples`.
std::vector<ChildOnPaper> on_paper(const Task& task, int64_t samples, const Precision& precision);

// The same where the rows between children are divided over so many ranks (sequence parallelism): each hands on its
// block.
std::vector<ChildOnPaper> in_row_blocks(std::vector<ChildOnPaper> children, int64_t ranks);

// The same where so many ranks share every sample, each with as many of its rows.
std::vector<ChildOnPaper> in_parts_of_samples(std::vector<ChildOnPaper> children, int64_t ranks);

}  // namespace ninefold
