// Trains a Llama on real text over a mesh of ranks, and compares itself with the serial model.
//
// ./run 09
#include <fmt/format.h>

#include "01_collectives/collectives.h"
#include "09_combined_3d/parallelize.h"

namespace {

using namespace ninefold;

struct MeshOptions {
  int64_t pp = 1, dp_replicate = Options::automatic, dp_shard = 1, cp = 1, tp = 1, ep = 1;

  void declare(Options& options) {
    options.group("Mesh");
    options.add("--dp-replicate", dp_replicate, "ranks that each hold the whole model; auto: the ranks left over",
                {.minimum = 1, .may_be_auto = true});
    for (const auto& [name, value, what] : later()) options.add(name, *value, what, {.minimum = 1});
  }

  void validate() {
    for (const auto& [name, value, what] : later()) {
      require(*value == 1,
              "{} {} is not available: this trainer splits the work over --dp-replicate only; leave {} at 1", name,
              *value, name);
    }
  }

 private:
  struct Later {
    const char* name;
    int64_t* value;
    const char* what;
  };
  std::vector<Later> later() {
    return {{"--pp", &pp, "pipeline stages; 1 only"},
            {"--dp-shard", &dp_shard, "ranks over which parameters are sharded; 1 only"},
            {"--cp", &cp, "ranks that share a sequence; 1 only"},
            {"--tp", &tp, "ranks that share a layer; 1 only"},
            {"--ep", &ep, "ranks that share the experts; 1 only"}};
  }
};

int run(int argc, char** argv) {
  TrainOptions train;
  MeshOptions sizes;
  Options command_line("09/train", "Trains a Llama over a mesh of ranks.");
  sizes.declare(command_line);
  train.declare_run(command_line);
  train.declare_llama(command_line);
  train.declare_optimizer(command_line);
  train.declare_report(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  sizes.validate();
  train.settle_check(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"dp_replicate", mesh_size(sizes.dp_replicate)}});
  const Group& data = mesh["dp_replicate"];
  train.resolve(data.size());
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  const Parallelism parallelism = parallelize(*model, mesh, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("09/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
