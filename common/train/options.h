// The options that all training programs share, spelled alike everywhere.
#pragma once

#include <optional>
#include <string>

#include "common/base/options.h"
#include "common/comm/world.h"
#include "common/nn/llama.h"
#include "common/nn/model.h"
#include "common/optim/loss_scale.h"
#include "common/optim/optimizer.h"
#include "common/optim/schedule.h"
#include "common/train/task.h"

namespace ninefold {

// Where a run begins and what it leaves behind.
struct CheckpointOptions {
  std::string folder;     // of the checkpoints; empty: there are none
  int64_t every = 0;      // steps; after the last one in any case
  int64_t keep = 0;       // so many of the newest; 0: all
  bool resume = false;    // from the newest
  bool async = false;     // training goes on while one is written
  std::string init_from;  // a folder with a model, whose parameters are the first; empty: those of the seed
};

// Defaults are those of the Llama programs.
struct TrainOptions {
  // Run
  DeviceType device = DeviceType::cpu;
  Dtype dtype = Dtype::f32;
  Dtype grad_dtype = Dtype::f32;
  // Where a technique lets layers compute with, and give scores of, another type than `dtype`.
  std::optional<Dtype> param_dtype{}, output_dtype{};
  // Of layers whose linear layers multiply in 8 bits, where a technique lets them; empty: none do.
  std::string f8_linears{};
  uint64_t seed = 1;
  int threads = 1;
  bool cuda_graph = false;
  std::string memory_limit;  // of each rank, such as "1GB"; empty: none
  // Batch; `micro_batch` and `micro_batches` are 0 until resolve_batch
  int64_t steps = 20;
  int64_t epochs = 0;  // passes over the training data, which then give the steps; 0: `steps` says how long
  int64_t batch = 8;
  int64_t micro_batch = 0;
  int64_t micro_batches = 0;
  // Model and data
  LlamaConfig llama;
  double capacity_factor = Options::automatic;  // as given; settle_moe makes llama.moe's of it
  bool dropless = false;
  int64_t length = 256;
  Recomputation recomputation;
  std::string data = NINEFOLD_DATA "/kjv.txt.gz";
  // Optimizer
  OptimizerSettings optimizer{.weight_decay = 0.1};
  CosineSchedule schedule{.lr = 2e-3, .min_lr = Options::automatic, .steps = 0, .warmup = 5, .constant_steps = 0};
  double gamma = 1;  // the learning rate is multiplied by it after each epoch
  double clip = 1;
  LossScaling loss_scaling;  // of f16
  // Check and report
  bool check = true;
  bool measure_peak = true;
  int64_t eval_every = 0;
  int64_t eval_batches = 10;
  int64_t eval_batch = 0;  // samples of all ranks in one forward of an evaluation; 0: those of a training step's
  int64_t log_every = 1;
  bool verbose = false;
  std::string report, trace;
  CheckpointOptions checkpoint;
  // Communication
  std::string collectives = "ours";  // whose: the course's own, those that sum in rank order, MPI's, NCCL's
  double timeout = 120;
  bool debug_comm = false;
  bool synchronous_sends = false;
  std::string cluster;  // described as Cluster::parse reads it; empty: no virtual time

  // All that follow.
  void declare(Options& options);
  // Each declares its groups of options. The Llama and optimizer groups are left out where a program fixes them.
  void declare_run(Options& options);
  void declare_llama(Options& options);
  void declare_moe(Options& options);
  void declare_optimizer(Options& options);
  void declare_cuda_graph(Options& options);
  void declare_report(Options& options);
  void declare_checkpoint(Options& options);

  // For "llama", nothing. For "mnist_cnn" and "mlp", takes those of mnist_options() that were not given. Throws
  // UserError where an option of Llama's was that the model does not have; an MLP has --layers, of width --dim.
  void use_defaults_of(const std::string& model, const Options& given);
  // Whether experts drop tokens. Throws UserError where --dropless and --capacity-factor contradict each other.
  void settle_moe();
  // --epochs or --steps says how long to train; where neither was given, `usual` epochs do (0: the steps that there
  // are). Throws UserError where both were, or an evaluation was asked for beside that of each epoch.
  void settle_epochs(const Options& given, int64_t usual);
  // Where there are epochs: their steps, with an evaluation on all test data after each.
  void use_epochs(const Task& task);

  // Where a Llama begins with the parameters of a folder, takes its sizes from there. Throws UserError where an option
  // that was given says otherwise, or one of checkpoints lacks another.
  void settle_checkpoint(const Options& given, const std::string& model = "llama");

  // Throws UserError where --cuda-graph was given and something that decides anew in every step.
  void validate_cuda_graph() const;

  // Unless they were given: the check is on where it costs little, up to `checked_parameters`, and GPUs communicate by
  // NCCL.
  void settle_defaults(const Options& given);
  static constexpr int64_t checked_parameters = 50'000'000;

  // Settles micro_batch and micro_batches for `data_ranks`, and looks at what can be wrong before any work: throws
  // UserError.
  void resolve(int data_ranks);

  // Samples that one data rank handles a step.
  int64_t local_batch(int data_ranks) const { return batch / data_ranks; }
  // Whether this step is compared with the serial model: the first three of a run that begins at `first`, and the last.
  bool checks(int64_t step, int64_t first) const { return check && (step < first + 3 || step == steps - 1); }
  // Whether there is an evaluation at all.
  bool evaluates() const { return eval_every > 0 && steps >= eval_every; }
  double lr_at(int64_t step, int64_t epoch) const;
  Precision precision() const;
  // As a run begins; it scales where layers compute in f16.
  LossScaler loss_scaler() const { return {loss_scaling, precision().compute == Dtype::f16}; }
  WorldOptions world() const;
};

// What the MNIST CNN of the PyTorch examples is trained with: Adadelta, learning rate 1, times 0.7 after each epoch,
// batches of 64.
TrainOptions mnist_options();

// For cuda: a GPU of this machine, one a rank while there are as many; then ranks share them in turn. The first time,
// all ranks of the job call it.
DeviceHandle make_device(DeviceType type, int threads);

// "llama", "mlp" or "mnist_cnn". On meta, Llama comes without data.
std::unique_ptr<Task> make_task(const std::string& model, const TrainOptions& options);

// The size that Mesh takes for an option that may be automatic. Throws UserError for one beyond all jobs.
int mesh_size(int64_t option);

// Prints the help once for all ranks; returns the exit code 0.
int print_help(const std::string& help);

}  // namespace ninefold
