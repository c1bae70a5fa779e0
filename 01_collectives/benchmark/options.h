// What 01/bench is asked to do.
#pragma once

#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/comm/collectives.h"

namespace ninefold::collectives {

struct BenchOptions {
  std::string smallest = "4", largest = "64M", segment = "256K";
  int factor = 4;
  int iterations = Options::automatic;
  int warmup = 2;
  int rounds = 15;
  int check = 1;
  ReduceOp op = ReduceOp::sum;
  Dtype dtype = Dtype::f32;
  std::string collective = "all_reduce", algorithm = "all", report;
  double timeout = 120;

  // What the words for sizes stand for, once resolved.
  int64_t smallest_bytes = 0, largest_bytes = 0, segment_bytes = 0;

  void declare(Options& options);
  // Throws UserError where options contradict each other.
  void resolve();

  std::vector<Operation> collectives() const;
  // What is timed side by side: "ours", "mpi", or an algorithm's name.
  std::vector<std::string> contestants(Operation operation) const;
};

}  // namespace ninefold::collectives
