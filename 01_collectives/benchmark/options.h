// What 01/bench is asked to do.
#pragma once

#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/comm/collectives.h"
#include "common/comm/mesh.h"

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
  DeviceType device = DeviceType::cpu;
  std::string collective = "all_reduce", algorithm = "all", report;
  double timeout = 120;
  std::string cluster;  // described as Cluster::parse reads it; empty: times are of the wall
  bool fit = false;     // measure the links instead
  int pp = 1, dp_replicate = Options::automatic, dp_shard = 1, cp = 1, tp = 1;

  // What the words for sizes stand for, once resolved.
  int64_t smallest_bytes = 0, largest_bytes = 0, segment_bytes = 0;

  void declare(Options& options);
  // Throws UserError where options contradict each other.
  void resolve();

  std::vector<Operation> collectives() const;
  // What is timed side by side: "ours", "mpi", "nccl", or an algorithm's name.
  std::vector<std::string> contestants(Operation operation) const;
  // The one whose average bandwidth is told at the end.
  std::string first_contestant() const { return device == DeviceType::cuda ? "nccl" : "ours"; }
  // From -b to -e.
  std::vector<int64_t> sizes() const;
  // Those larger than one, and dp_replicate.
  std::vector<MeshDimension> mesh() const;
};

}  // namespace ninefold::collectives
