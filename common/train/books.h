// What a run leaves behind: its steps, its verdict, and the books of memory and traffic, predicted beside measured.
// Printed for people, written as JSON for programs.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/comm/mesh.h"
#include "common/nn/routing.h"
#include "common/train/options.h"
#include "common/train/oracle.h"
#include "common/train/step_clock.h"
#include "common/train/task.h"

namespace ninefold {

struct StepRecord {
  int64_t step;
  double loss;                  // mean over the global batch, natural logarithm
  double gradient_norm;         // before clipping; infinite after an overflow
  double loss_scale;            // 1 but for f16
  bool skipped;                 // nothing was updated, because the scaled gradients overflowed
  double milliseconds;          // wall time on rank 0, the oracle's left out
  double virtual_milliseconds;  // by which the largest clock of all ranks grew; 0 without a cluster
  double rows_per_second;
  std::optional<RoutingRecord> routing{};  // of all ranks, where there are experts
};

struct EvaluationRecord {
  int64_t step;  // steps trained before it
  double loss;
  double accuracy;  // share of rows whose target has the highest score
};

// Bytes on the rank that needs most. `predicted` is 0 for kinds without a formula.
struct MemoryRecord {
  MemoryKind kind;
  int64_t predicted, measured_peak;
  bool agrees() const { return predicted == 0 || predicted == measured_peak; }
};

// The part of a pipeline's time in which ranks do not compute, on average over the ranks.
struct BubbleRecord {
  double predicted, measured;
};

struct RunRecord {
  std::string program;
  std::string unit;
  int ranks = 1;
  double flops_per_row = 0;
  // Of the matmuls, attention and convolutions of all ranks; recomputation counts here, and not in flops_per_row.
  double executed_flops_per_step = 0, predicted_flops_per_step = 0;
  double matmul_peak = 0;  // FLOP/s of all ranks; 0 where it was not measured
  std::vector<StepRecord> steps;
  std::vector<EvaluationRecord> evaluations;
  std::vector<MemoryRecord> memory;
  TrafficLedger::ByDimension traffic;  // this rank's
  int64_t reserved_bytes = 0;          // taken from the system by the device, the rank with most
  int64_t oracle_bytes = 0;
  bool has_virtual_time = false;
  ExposedCommunication exposed;
  std::optional<double> gather_error;  // where values are rounded on their way: how far, relative to their norm
  std::optional<BubbleRecord> bubble;
  Numerics numerics = Numerics::bounded;  // what the technique claims, checked or not
  CheckResult check;
  bool books_balanced = true;  // on every rank

  // Median milliseconds of the steps after two to warm up (of all, where there are no more), of wall and of virtual
  // time.
  double milliseconds_per_step() const { return median_of(&StepRecord::milliseconds); }
  double virtual_milliseconds_per_step() const { return median_of(&StepRecord::virtual_milliseconds); }
  double rows_per_second() const;
  double rows_per_step() const;
  double flops_per_second() const { return flops_per_row * rows_per_second(); }
  double peak_fraction() const { return matmul_peak > 0 ? flops_per_second() / matmul_peak : 0; }
  // Whether measured memory and traffic are as predicted on this rank.
  bool books_agree() const;

 private:
  double median_of(double StepRecord::*milliseconds) const;
};

// The bytes of each kind by formula, for what this rank owns of the parameters. `evaluated`: samples in one forward of
// an evaluation here; 0 where there is none. `technique` replaces those that it lays out otherwise than one tensor a
// parameter.
std::vector<MemoryRecord> predict_memory(const std::vector<Parameter*>& parameters, const TrainOptions& options,
                                         const Task& task, int64_t evaluated,
                                         const std::function<void(MemoryByKind&)>& technique);
// Where no step is made, there is nothing of what steps need.
void predict_no_step(std::vector<MemoryRecord>& memory);
// Adds this rank's measured peaks.
void measure_memory(std::vector<MemoryRecord>& memory, const Device& device);
// Of every kind the largest prediction and the largest peak of all ranks.
void take_largest(std::vector<MemoryRecord>& memory, const Group& group);

// Tables of summary, memory and traffic, and the verdict.
std::string summary_text(const RunRecord& record, const TrainOptions& options);

// The report under the keys that design and README name, written to `path`.
void write_report(const std::string& path, const RunRecord& record, const TrainOptions& options,
                  const Options& command_line, const Mesh& mesh);

}  // namespace ninefold
