// Trains a Llama with a mixture of experts on several ranks.
//
// ./run 08 -n 2 -- --experts 8 --top-k 2 --balance bias
#include "01_collectives/collectives.h"
#include "02_ddp/replicate.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  DdpOptions ddp;
  int64_t dp_replicate = Options::automatic;
  TrainOptions train;

  // Many narrow experts: twice the width of a dense feed-forward in use, eight times in store.
  ProgramOptions() {
    train.llama.layers = 4;
    train.llama.ffn = 352;
    train.llama.moe.experts = 8;
  }

  void declare(Options& options) {
    options.group("Parallelism");
    options.add("--dp-replicate", dp_replicate, "ranks that each hold the whole model; auto: all",
                {.minimum = 1, .may_be_auto = true});
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_moe(options);
    train.declare_optimizer(options);
    train.declare_report(options);
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("08/train", "A mixture of experts: each token visits a few of many feed-forwards.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.settle_moe();
  train.settle_check(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"dp_replicate", mesh_size(options.dp_replicate)}});
  const Group& data = mesh["dp_replicate"];
  const auto task = make_task("llama", train);
  train.resolve(data.size());

  const auto model = task->make_model();
  Replicated replicated(*model, data, options.ddp, world.device(), train.grad_dtype);
  materialize(*model, world.device(), train.precision(), train.seed);
  replicated.broadcast_parameters();

  return Trainer("08/train", train, command_line, mesh, data, *task, *model, replicated.parallelism()).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
