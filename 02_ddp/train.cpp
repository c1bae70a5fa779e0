// Trains the MNIST CNN or a Llama on several ranks, each with the whole model and its own part of the batch.
//
// ./run 02 -n 2 -- --model llama --variant overlapped
#include "01_collectives/collectives.h"
#include "02_ddp/replicate.h"
#include "common/train/trainer.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  std::string model = "llama";
  DdpOptions ddp;
  int64_t dp_replicate = Options::automatic;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Data parallelism");
    options.add_choice("--model", model, {"llama", "mnist_cnn"}, "what to train");
    options.add_choice<DdpVariant>(
        "--variant", ddp.variant,
        {{"naive", DdpVariant::naive},
         {"flat", DdpVariant::flat},
         {"bucketed", DdpVariant::bucketed},
         {"overlapped", DdpVariant::overlapped}},
        "how gradients are summed: one call a parameter, one for all, one a bucket, or one a "
        "bucket while the backward goes on");
    options.add("--bucket-mb", ddp.bucket_mb, "size of a bucket", {.minimum = 0.001, .unit = "MB"});
    options.add_choice<Dtype>("--reduce-dtype", ddp.reduce, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}},
                              "type in which gradients are summed over the ranks: f32, or that of --grad-dtype");
    options.add("--dp-replicate", dp_replicate, "ranks that each hold the whole model; auto: all",
                {.minimum = 1, .may_be_auto = true});
    options.add("--epochs", train.epochs, "passes over the training data instead of --steps; mnist_cnn: 3",
                {.minimum = 0});
    train.declare(options);
    options.group("Run");
    train.declare_cuda_graph(options);
  }

  // The defaults that depend on other options.
  void settle(const Options& given) {
    train.settle_epochs(given, model == "mnist_cnn" ? 3 : 0);
    require(ddp.reduce == Dtype::f32 || ddp.reduce == train.grad_dtype,
            "--reduce-dtype {} needs --grad-dtype {}; gradients are summed in f32 or in their own type",
            name_of(ddp.reduce), name_of(ddp.reduce));
    require(!train.cuda_graph || model == "llama",
            "--cuda-graph repeats one step's dropout, but {} has another in every step; leave it out", model);
    train.use_defaults_of(model, given);
    train.settle_checkpoint(given, model);
    train.settle_defaults(given);
    train.validate_cuda_graph();
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("02/train",
                       "Distributed data parallelism: the whole model on every rank, a part of the batch each.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.settle(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh(world, {{"dp_replicate", mesh_size(options.dp_replicate)}});
  const Group& data = mesh["dp_replicate"];
  const auto task = make_task(options.model, train);
  train.use_epochs(*task);
  train.resolve(data.size());

  const auto model = task->make_model();
  Replicated replicated(*model, data, options.ddp, world.device(), train.grad_dtype);
  materialize(*model, world.device(), train.precision(), train.seed);
  replicated.broadcast_parameters();

  return Trainer("02/train", train, command_line, mesh, data, *task, *model, replicated.parallelism()).run();
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
