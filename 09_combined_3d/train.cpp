// Trains a Llama on real text over a mesh of ranks, any of the course's techniques along each dimension, and compares
// itself with the serial model.
//
// ./run 09
#include <fmt/format.h>

#include "01_collectives/collectives.h"
#include "09_combined_3d/options.h"

namespace {

using namespace ninefold;

// What looks odd, but trains.
void announce(const CombinedOptions& options, const Group& tp, const Options& given) {
  const std::string warning = warning_of_slow_links(tp);
  if (on_first_rank()) fmt::print("{}{}", options.techniques.tensor.without_effect(tp.size(), given), warning);
}

int run(int argc, char** argv) {
  CombinedOptions options;
  TrainOptions& train = options.train;
  Options command_line("09/train", "Trains a Llama over a mesh of ranks.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.settle(command_line, job_size());

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh = options.mesh.over(world);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  options.settle(command_line, mesh, data.size());
  announce(options, mesh["tp"], command_line);
  const auto task = make_task("llama", train);

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  const Parallelism parallelism = parallelize(*model, *task, mesh, options.techniques, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("09/train", train, command_line, mesh, data, *task, *model, parallelism).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
