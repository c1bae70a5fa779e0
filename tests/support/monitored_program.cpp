// Runs collectives and prints, for every rank, what the traffic ledger says it has sent to each other rank; with the
// argument `nothing` it runs none. monitoring.sh compares that with what Open MPI has counted.
#include "01_collectives/collectives.h"
#include "common/comm/world.h"

namespace {

using namespace ninefold;

CollectivesFactory collectives_called(const std::string& name) {
  return name == "mpi" ? mpi_collectives() : name == "ordered" ? collectives::ordered() : collectives::ours();
}

// Part j of the uneven all_to_all has j % 3 rows.
void run_uneven_all_to_all(const Group& group, int64_t row) {
  std::vector<int64_t> in_rows;
  int64_t total = 0;
  for (int peer = 0; peer < group.size(); ++peer) {
    in_rows.push_back(peer % 3);
    total += peer % 3;
  }
  const int64_t own = group.rank() % 3;
  const DeviceHandle& device = group.world().device();
  group.all_to_all(Tensor::zeros(device, {group.size() * own, row}, Dtype::f32),
                   Tensor::zeros(device, {total, row}, Dtype::f32), std::vector<int64_t>(group.size(), own), in_rows);
}

void run_collectives(const Group& group, int64_t part, Dtype dtype) {
  const auto zeros = [&](int64_t size) { return Tensor::zeros(group.world().device(), {size}, dtype); };
  const int64_t whole = part * group.size();
  for (const int64_t size : {part, whole}) {
    group.all_reduce(zeros(size));
    group.all_reduce(zeros(size), zeros(size));
    for (int root = 0; root < group.size(); ++root) {
      group.broadcast(zeros(size), root);
      group.reduce(zeros(size), root);
    }
  }
  group.all_gather(zeros(whole), zeros(part));
  group.reduce_scatter(zeros(part), zeros(whole));
  group.all_to_all(zeros(whole), zeros(whole));
  run_uneven_all_to_all(group, part);
}

int run(int argc, char** argv) {
  require(argc == 2, "give one of ours, ordered, mpi, nothing");
  const std::string name = argv[1];
  World world({.device = make_cpu_device(), .timeout = 20}, collectives_called(name));
  if (name != "nothing") {
    for (const int64_t part : {0, 1, 5, 1001, 40001}) run_collectives(world.group(), part, Dtype::f32);
    run_collectives(world.group(), 8001, Dtype::bf16);
  }
  Sent sent;
  for (const auto& [dimension, operations] : world.traffic().techniques()) {
    for (const auto& [operation, entry] : operations) sent.add(entry);
  }
  for (size_t peer = 0; peer < sent.to.size(); ++peer) {
    fmt::print("rank {} to {}: {} bytes in {} messages\n", world.rank(), peer, sent.to[peer].bytes,
               sent.to[peer].messages);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
