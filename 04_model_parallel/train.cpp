// Trains a model that is cut into as many stages as there are ranks: each holds only its own layers, and waits while
// the others compute.
//
// ./run 04 -n 4
#include "01_collectives/collectives.h"
#include "04_model_parallel/model_parallel.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  std::string model = "llama", layers_per_stage;
  int64_t pp = Options::automatic;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Model parallelism");
    options.add_choice("--model", model, {"llama", "mlp", "mnist_cnn"}, "what to train");
    options.add("--pp", pp, "stages, one a rank; auto: all", {.minimum = 1, .may_be_auto = true});
    options.add("--layers-per-stage", layers_per_stage, "like 2,3,3; otherwise the FLOPs are balanced");
    train.declare(options);
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("04/train",
                       "Model parallelism: a stage of the model on every rank, the whole batch in one piece.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  train.use_defaults_of(options.model, command_line);
  train.settle_checkpoint(command_line);
  train.settle_defaults(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"pp", mesh_size(options.pp)}});
  const Group& pipeline = mesh["pp"];
  const Group data = mesh.flatten({"dp_replicate"});  // one data rank
  train.resolve(data.size());
  require(train.micro_batches == 1,
          "this program takes the whole batch through the stages at once, not in {} micro-batches; 06/train does that",
          train.micro_batches);
  const auto task = make_task(options.model, train);

  const auto children = on_paper(*task, train.micro_batch, train.precision());
  const auto stages = cut(layers_of(children), pipeline.size(), options.layers_per_stage);
  RanksOfStages ranks_of;
  for (int rank = 0; rank < pipeline.size(); ++rank) ranks_of.push_back({rank});
  if (on_first_rank()) fmt::print("{}", description(stages, children, ranks_of));

  const auto model = task->make_model();
  StagedModel staged(*model, stages, ranks_of, children, pipeline, *task);
  ModelParallel model_parallel(staged);
  materialize(*model, world.device(), train.precision(), train.seed);

  return Trainer("04/train", train, command_line, mesh, data, *task, *model, model_parallel.parallelism(*task, train))
      .run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
