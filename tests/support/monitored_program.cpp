// Runs collectives and prints, for every rank, how many bytes the traffic ledger says it has sent; with the argument
// `nothing` it runs none. monitoring.sh compares that with what Open MPI has counted.
#include "01_collectives/collectives.h"
#include "common/comm/world.h"

namespace {

using namespace ninefold;

CollectivesFactory collectives_called(const std::string& name) {
  return name == "mpi" ? mpi_collectives() : name == "ordered" ? collectives::ordered() : collectives::ours();
}

// The books of MPI's collectives are the formulas of the algorithms that send least. On 2 ranks and for large data, Open
// MPI's send just that; but its reduce_scatter is a reduce and a scatter, in which one rank sends more.
void run_collectives(const Group& group, int64_t part, bool only_by_formula) {
  const auto zeros = [&](int64_t size) { return Tensor::zeros(group.world().device(), {size}, Dtype::f32); };
  const int64_t whole = part * group.size();
  group.all_reduce(zeros(whole));
  group.all_gather(zeros(whole), zeros(part));
  group.all_to_all(zeros(whole), zeros(whole));
  if (only_by_formula) return;
  group.reduce_scatter(zeros(part), zeros(whole));
  group.broadcast(zeros(whole), 0);
  group.reduce(zeros(whole), 0);
}

int run(int argc, char** argv) {
  require(argc == 2, "give one of ours, ordered, mpi, nothing");
  const std::string name = argv[1];
  World world({.device = make_cpu_device(), .timeout = 20}, collectives_called(name));
  if (name == "mpi") run_collectives(world.group(), 300000, true);
  if (name == "ours" || name == "ordered") {
    for (const int64_t part : {1, 100, 5000, 300000}) run_collectives(world.group(), part, false);
  }
  int64_t bytes = 0;
  for (const auto& [dimension, operations] : world.traffic().techniques()) {
    for (const auto& [operation, entry] : operations) bytes += entry.bytes;
  }
  fmt::print("rank {} books {}\n", world.rank(), bytes);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
