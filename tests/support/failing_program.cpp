// A program that goes wrong on purpose:
//   mpirun -n 3 failing_program HOW RANK [--debug-comm | --nccl] [anything else is ignored]
#include <csignal>
#include <string>

#include "common/comm/group.h"
#include "common/comm/mesh.h"
#include "common/comm/world.h"

namespace ninefold {
namespace {

void fail(const std::string& how, int failing_rank, World& world) {
  const Tensor tensor = Tensor::zeros(world.device(), {1000}, Dtype::f32);
  const bool fails = world.rank() == failing_rank;
  world.set_step(7);
  if (how == "throw") expect(!fails, "rank {} found a broken invariant", failing_rank);
  if (how == "reject") require(!fails, "heads ({}) must be divisible by tp ({})", 6, 4);
  if (how == "reject_everywhere") require(false, "heads ({}) must be divisible by tp ({})", 6, 4);
  if (how == "mesh") const Mesh mesh(world, {{"pp", 2}, {"dp_shard", 3}, {"tp", 2}});
  if (how == "drop") {
    const Pending dropped = world.group().start_all_reduce(tensor);
    require(!fails, "rank {} leaves while an operation is under way", failing_rank);
  }
  if (how == "kill" && fails) std::raise(SIGKILL);
  if (how == "mismatch" && fails) world.group().all_gather(tensor, tensor.rows(0, 1000 / world.size()));
  if (how == "absent" && fails) {
    world.group().recv(tensor, (failing_rank + 1) % world.size(), 5);
  }
  if (how == "send_first") {  // both: it relies on buffering
    world.group().send(tensor, 1 - world.rank());
    world.group().recv(tensor, 1 - world.rank());
  }
  world.group().all_reduce(tensor);
}

int run(int argc, char** argv) {
  require(argc >= 3, "usage: failing_program HOW RANK [--debug-comm | --nccl]");
  const std::string option = argc > 3 ? argv[3] : "";
  const bool on_gpu = option == "--nccl";
  World world({.device = on_gpu ? make_cuda_device(0) : make_cpu_device(),
               .timeout = 6,
               .debug_comm = option == "--debug-comm"},
              on_gpu ? nccl_collectives(mpi_collectives()) : mpi_collectives());
  for (int step = 0; step < 3; ++step) {
    const Tensor tensor = Tensor::zeros(world.device(), {1000}, Dtype::f32);
    world.group().all_reduce(tensor);
  }
  fail(argv[1], std::stoi(argv[2]), world);
  return 0;
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) { return ninefold::launch(argc, argv, ninefold::run); }
