// The step loop that every training program shares: batches, forward and backward, the technique's reduction, clipping,
// update; the oracle beside it; and the books, the report and the verdict at the end.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/trace.h"
#include "common/comm/mesh.h"
#include "common/train/batches.h"
#include "common/train/books.h"
#include "common/train/micro_batch_graphs.h"
#include "common/train/options.h"
#include "common/train/oracle.h"
#include "common/train/task.h"

namespace ninefold {

class Checkpoints;  // common/train/checkpoint.h
struct RunPosition;

// Several ranks share each sample: this one has the rows at `positions` of it, and the others of `group` the rest.
struct SamplePart {
  std::vector<int32_t> positions;
  Group group;
};

// What the step loop needs to know of the technique that splits the work.
struct Parallelism {
  // How gradients are added up.
  SumGrouping grouping{};
  // Absent: a rank has whole samples.
  std::optional<SamplePart> sample_part{};
  // Takes a step's micro-batches forward and backward, into the gradients; returns the sum of the losses of this data
  // rank, or of its part of the samples. Absent: one after the other through the whole model.
  std::function<double(const std::vector<MicroBatch>&)> compute_gradients{};
  // Absent: by the whole model. All ranks call it equally often; the same on all that share the data.
  std::function<Score(const Batch&)> evaluate{};
  // Once, when parameters have their first values.
  std::function<void()> before_training = [] {};
  // After a step's last micro-batch: makes the gradients that this rank owns sums over all data ranks.
  std::function<void()> reduce_gradients = [] {};
  // After the optimizer has updated what this rank owns.
  std::function<void()> after_update = [] {};
  // After what this rank owns was read from a file, before the first step: what was gathered from it is old.
  std::function<void()> after_load = [] {};
  // Replaces the bytes by kind that the technique lays out otherwise than one tensor a parameter.
  std::function<void(MemoryByKind&)> predict_memory = [](MemoryByKind&) {};
  // Books what the technique's formula says it sends in `steps` steps.
  std::function<void(TrafficLedger&, int64_t steps)> predict_traffic = [](TrafficLedger&, int64_t) {};
  // Where the optimizer's states are booked: under host, where they do not lie on the device.
  MemoryKind optimizer_memory = MemoryKind::optimizer;
  // Where layers compute with values that are rounded on their way, and not alone to the type of computation: gives the
  // parameters of a whole model, with the owned values of this run, such values.
  std::function<void(const std::vector<Parameter*>& whole)> round_as_gathered{};
  // How far such values are from those owned, relative, on all ranks; all call it.
  std::function<double()> gather_error{};
  // The idle time of ranks that wait for each other's results, where there is such. After the last step, on all ranks.
  std::function<std::optional<BubbleRecord>()> bubble = [] { return std::nullopt; };
  // Peak bytes of activations in a step, given what this rank's routers found in it. Absent: by the task's formula.
  std::function<int64_t(const RoutingRecord&)> predict_activations{};
  // Replaces the FLOPs that all ranks execute in a step, where the technique computes some of them twice or not at all.
  std::function<double(double flops)> predict_flops = [](double flops) { return flops; };
  // What the technique claims; the check demands it.
  Numerics numerics = Numerics::bounded;
  // Of a sample's rows, those that this rank has.
  int64_t rows_of(int64_t sample) const {
    return sample_part ? static_cast<int64_t>(sample_part->positions.size()) : sample;
  }
  // Lives as long as this: the technique that the functions above call, where nobody else holds it.
  std::shared_ptr<const void> technique{};
};

class Trainer {
 public:
  // `program` is the name in the report; `command_line` what was asked. Everything passed outlives the trainer. The
  // model is materialised and parallelised; `data` is the group over which the global batch is divided.
  Trainer(std::string program, const TrainOptions& options, const Options& command_line, const Mesh& mesh,
          const Group& data, const Task& task, Model& model, Parallelism parallelism);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Trains, checks, reports. Returns the exit code: 0, or 1 where the check or the books disagree.
  int run();

  const RunRecord& record() const { return record_; }

 private:
  struct StepResult {
    double loss;
    double gradient_norm;
    double seconds;
    double loss_scale;
    bool skipped;
    double virtual_milliseconds = 0;
    std::optional<RoutingRecord> routing{};
  };
  void announce() const;
  // What the first step finds: the initial values, or those of a checkpoint.
  RunPosition begin();
  void train(RunPosition position, StepClock& clock);
  StepResult train_step(GlobalBatch batch, int64_t epoch, bool checked);
  // Leaves the gradients summed and unscaled; returns the loss, the mean over the global batch.
  double compute_gradients(const GlobalBatch& batch);
  // Over the data ranks, and those that share their samples.
  double sum_over_data(double value) const;
  ops::ExactSum global_squares() const;
  // `norm`: the gradients', before clipping. Does nothing to the parameters where it overflowed.
  void update(int64_t step, double lr, double norm, const std::optional<RoutingRecord>& routing);
  void log_step(int64_t step, bool print, const StepResult& result);
  void evaluate(int64_t steps_done);
  // Samples of an evaluation, and those in one forward of it here.
  int64_t evaluation_samples() const;
  int64_t evaluated_at_once() const;
  // FLOP/s of all ranks together; 0 where it is not asked for.
  double measure_peak() const;
  // Where experts drop tokens, only the step tells how much they keep.
  void predict_activations(const RoutingRecord& routing);
  void start_trace();
  int finish();
  void write_trace_file() const;

  const TrainOptions& options_;
  const Options& command_line_;
  const Mesh& mesh_;
  World& world_;
  Group data_;
  const Task& task_;
  Model& model_;
  Parallelism parallelism_;
  std::vector<Parameter*> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  LossScaler scaler_;
  std::optional<MicroBatchGraphs> graphs_;
  std::optional<Group> routing_ranks_;  // with other tokens or other mixtures of experts; absent: there are none
  std::unique_ptr<Oracle> oracle_;
  std::unique_ptr<Checkpoints> checkpoints_;
  std::optional<Trace> trace_;
  double peak_before_ = 0;
  RunRecord record_;
};

}  // namespace ninefold
