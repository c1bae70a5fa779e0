// Trains the MNIST CNN under fully sharded data parallelism: PyTorch's FSDP example
// (https://docs.pytorch.org/tutorials/intermediate/FSDP_tutorial.html), with its options and its test after each epoch.
//
// ./run 03/mnist -n 2 -- --epochs 1 --save-model
#include "01_collectives/collectives.h"
#include "03_zero_fsdp/divide.h"
#include "common/base/report.h"
#include "common/train/tensor_files.h"

namespace {

using namespace ninefold;

constexpr const char* saved_model = "mnist_cnn.safetensors";

struct ProgramOptions {
  ShardingPolicy policy;
  ShardingMesh mesh;
  bool save_model = false;
  TrainOptions train = mnist_options();

  ProgramOptions() {
    policy.wrap = "size:20000";
    train.epochs = 3;
    train.eval_batch = 1000;
  }

  void declare(Options& options) {
    options.group("MNIST");
    options.add("--epochs", train.epochs, "passes over the training images", {.minimum = 0});
    options.add("--batch-size", train.batch, "images of all ranks in a step: another name of --batch",
                {.minimum = 1, .unit = "images"});
    options.add("--test-batch-size", train.eval_batch, "images of all ranks in one forward of the test",
                {.minimum = 1, .unit = "images"});
    options.add("--lr", train.schedule.lr, "learning rate of Adadelta", {.minimum = 0});
    options.add("--gamma", train.gamma, "by which the learning rate is multiplied after each epoch", {.minimum = 0});
    options.add("--save-model", save_model, fmt::format("write the trained parameters to {}", saved_model));
    policy.declare(options);
    mesh.declare(options);
    train.declare_run(options);
    train.declare_report(options);
  }

  // The defaults that depend on other options, and what does not fit together.
  void settle(const Options& given) {
    require(!given.given("--batch-size") || !given.given("--batch"),
            "--batch-size and --batch are two names of one number; give one of them");
    train.settle_epochs(given, train.epochs);
    train.schedule.min_lr = train.schedule.lr;
    train.settle_defaults(given);
    policy.settle_types(train);
    policy.validate();
    require(!save_model || train.device != DeviceType::meta,
            "--save-model needs values, and device meta has shapes only; leave one of them out");
    if (save_model) require_writable(saved_model, "--save-model");
  }
};

int run(int argc, char** argv) {
  ProgramOptions options;
  TrainOptions& train = options.train;
  Options command_line("03/mnist", "The MNIST CNN under fully sharded data parallelism.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.settle(command_line);

  World world(train.world(), collectives::named(train.collectives));
  const Mesh mesh = options.mesh.over(world);
  const Group data = mesh.flatten({"dp_replicate", "dp_shard"});
  const auto task = make_task("mnist_cnn", train);
  train.use_epochs(*task);
  train.resolve(data.size());

  const auto model = task->make_model();
  cast_scores(*model, train.precision());
  const Parallelism parallelism = divide(*model, mesh, options.policy, train);
  materialize(*model, world.device(), train.precision(), train.seed);

  const int exit_code = Trainer("03/mnist", train, command_line, mesh, data, *task, *model, parallelism).run();
  if (options.save_model) save_safetensors(saved_model, mesh, parameters_of(*model));
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
