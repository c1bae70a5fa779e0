// Trains a Llama with a mixture of experts whose experts are divided over the ranks; with --dp-shard and --dp-replicate
// in two dimensions and more.
//
// ./run 08 -n 2 -- --experts 8 --top-k 2 --ep 2 --balance bias
#include "01_collectives/collectives.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "08_expert_parallel/predict.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  int64_t dp_replicate = 1, dp_shard = 1, ep = Options::automatic, expert_tp = 1;
  ShardingPolicy policy;
  RecomputationOptions recomputation;
  TrainOptions train;

  // Many narrow experts: twice the width of a dense feed-forward in use, eight times in store.
  ProgramOptions() {
    train.llama.layers = 4;
    train.llama.ffn = 352;
    train.llama.moe.experts = 8;
  }

  void declare(Options& options) {
    options.group("Expert parallelism");
    options.add("--ep", ep, "ranks that divide the experts, each with other tokens; auto: the ranks left over",
                {.minimum = 1, .may_be_auto = true});
    options.add("--expert-tp", expert_tp, "ranks that each expert is cut over; they have the same tokens",
                {.minimum = 1});
    train.declare_moe(options);
    policy.declare(options);
    options.add("--dp-shard", dp_shard, "times that over which the ranks of --ep are repeated, and states divided",
                {.minimum = 1, .may_be_auto = true});
    options.add("--dp-replicate", dp_replicate, "times that all of this is repeated, with copies of all states",
                {.minimum = 1, .may_be_auto = true});
    recomputation.declare(options);
    train.declare_run(options);
    train.declare_llama(options);
    train.declare_optimizer(options);
    train.declare_report(options);
    train.declare_checkpoint(options);
  }

  // The defaults that depend on other options, and what is wrong before there are ranks.
  void settle(const Options& given) {
    train.settle_moe();
    require(train.llama.moe.experts > 0, "there is nothing to divide: --experts must be at least 1");
    if (dp_shard == 1 && !given.given("--stage")) policy.stage = 0;
    train.settle_checkpoint(given);
    train.settle_defaults(given);
    policy.settle_types(train);
    policy.validate();
    train.recomputation = recomputation.resolve();
  }

  // Dimensions dp_replicate, dp_shard and ep, all of them of data, and expert_tp.
  Mesh mesh_over(World& world) const {
    const int64_t data_ranks = world.size() / expert_tp;
    require(ep == Options::automatic || data_ranks % ep == 0, "ep ({}) must divide the data-parallel ranks ({})", ep,
            data_ranks);
    return Mesh(world, {{"dp_replicate", mesh_size(dp_replicate)},
                        {"dp_shard", mesh_size(dp_shard)},
                        {"ep", mesh_size(ep)},
                        {"expert_tp", mesh_size(expert_tp)}});
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("08/train", "A mixture of experts, divided over the ranks: tokens travel to where theirs are.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.settle(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh = options.mesh_over(world);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard", "ep"});
  train.resolve(data.size());
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  const std::shared_ptr<const ExpertParallel> experts = expert_parallel(*model, mesh["ep"], mesh["expert_tp"]);
  checkpoint_activations(*model, "layers.*", train.recomputation);
  const Parallelism parallelism = beside(divide(*model, mesh, options.policy, train), experts, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("08/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
