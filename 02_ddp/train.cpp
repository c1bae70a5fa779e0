// Trains the MNIST CNN or a Llama on several ranks, each with the whole model and its own part of the batch.
//
// ./run 02 -n 2 -- --model llama --variant flat
#include <fmt/format.h>

#include "02_ddp/replicate.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct DdpOptions {
  std::string model = "llama";
  DdpVariant variant = DdpVariant::flat;
  int64_t dp_replicate = Options::automatic;
  int64_t epochs = 0;

  void declare(Options& options) {
    options.group("Data parallelism");
    options.add_choice("--model", model, {"llama", "mnist_cnn"}, "what to train");
    options.add_choice<DdpVariant>("--variant", variant, {{"naive", DdpVariant::naive}, {"flat", DdpVariant::flat}},
                                   "how gradients are summed: one call a parameter, or one for all");
    options.add("--dp-replicate", dp_replicate, "ranks that each hold the whole model; auto: all",
                {.minimum = 1, .may_be_auto = true});
    options.add("--epochs", epochs, "passes over the training data instead of --steps; mnist_cnn: 3", {.minimum = 0});
  }

  void settle_epochs(const Options& given) {
    const bool has_steps = given.given("--steps");
    require(epochs == 0 || !has_steps, "--epochs ({}) and --steps both say how long to train; give one of them", epochs);
    if (model == "mnist_cnn" && !has_steps && !given.given("--epochs")) epochs = 3;
  }
};

int run(int argc, char** argv) {
  TrainOptions train;
  DdpOptions ddp;
  Options command_line("02/train", "Distributed data parallelism: the whole model on every rank, a part of the batch each.");
  ddp.declare(command_line);
  train.declare_run(command_line);
  train.declare_llama(command_line);
  train.declare_optimizer(command_line);
  train.declare_report(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  ddp.settle_epochs(command_line);
  if (ddp.model == "mnist_cnn") train.use_mnist_defaults(command_line);
  train.settle_check(command_line);

  World world(train.world(), mpi_collectives());
  const Mesh mesh(world, {{"dp_replicate", mesh_size(ddp.dp_replicate)}});
  const Group& data = mesh["dp_replicate"];
  const auto task = make_task(ddp.model, train);
  if (ddp.epochs > 0) train.use_epochs(ddp.epochs, *task);
  train.resolve(data.size());

  const auto model = task->make_model();
  const Replicated replicated(*model, data, ddp.variant, world.device(), train.grad_dtype);
  materialize(*model, world.device(), train.precision(), train.seed);

  Trainer trainer("02/train", train, command_line, mesh, data, *task, *model,
                  {.reduce_gradients = [&] { replicated.reduce_gradients(); },
                   .predict_traffic = [&](TrafficLedger& ledger, int64_t steps) {
                     replicated.predict_traffic(ledger, steps);
                   }});
  return trainer.run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
