#include "common/train/books.h"

#include <algorithm>

#include "common/base/median.h"
#include "common/comm/control.h"

namespace ninefold {

double RunRecord::median_of(double StepRecord::*milliseconds) const {
  std::vector<double> times;
  for (size_t i = first_counted(steps.size()); i < steps.size(); ++i) times.push_back(steps[i].*milliseconds);
  return median(std::move(times));
}

double RunRecord::rows_per_second() const {
  if (steps.empty()) return 0;
  return rows_per_step() / milliseconds_per_step() * 1e3;
}

double RunRecord::rows_per_step() const {
  return steps.empty() ? 0 : steps[0].rows_per_second * steps[0].milliseconds * 1e-3;
}

bool RunRecord::books_agree() const {
  const bool memory_agrees = std::all_of(memory.begin(), memory.end(), [](const auto& m) { return m.agrees(); });
  bool traffic_agrees = true;
  for (const auto& [dimension, operations] : traffic) {
    for (const auto& [operation, entry] : operations) {
      traffic_agrees &= entry.is_as_predicted();
    }
  }
  return memory_agrees && traffic_agrees;
}

std::vector<MemoryRecord> predict_memory(const std::vector<Parameter*>& parameters, const TrainOptions& options,
                                         const Task& task, int64_t evaluated,
                                         const std::function<void(MemoryByKind&)>& technique) {
  MemoryByKind bytes{};
  const Precision precision = options.precision();
  const auto of = [&](MemoryKind kind) -> int64_t& { return bytes[static_cast<size_t>(kind)]; };
  for (const Parameter* parameter : parameters) {
    const int64_t size = elements(parameter->local_shape());
    of(MemoryKind::parameters) += size * size_of(precision.stored);
    of(MemoryKind::gradients) += size * size_of(precision.gradient);
  }
  of(MemoryKind::optimizer) = optimizer_bytes(options.optimizer, parameters, precision.stored);
  if (options.steps > 0) {
    of(MemoryKind::activations) = std::max(task.activation_bytes(options.micro_batch, precision, options.recomputation),
                                           task.evaluation_bytes(evaluated, precision));
  }
  technique(bytes);
  if (options.steps == 0) of(MemoryKind::gathered) = 0;
  std::vector<MemoryRecord> memory;
  for (int kind = 0; kind < memory_kinds; ++kind) {
    memory.push_back({static_cast<MemoryKind>(kind), bytes[static_cast<size_t>(kind)], 0});
  }
  return memory;
}

void predict_no_step(std::vector<MemoryRecord>& memory) {
  for (MemoryRecord& entry : memory) {
    if (entry.kind == MemoryKind::activations || entry.kind == MemoryKind::gathered) entry.predicted = 0;
  }
}

void measure_memory(std::vector<MemoryRecord>& memory, const Device& device) {
  for (MemoryRecord& entry : memory) entry.measured_peak = device.ledger().peak(entry.kind);
}

void take_largest(std::vector<MemoryRecord>& memory, const Group& group) {
  for (MemoryRecord& entry : memory) {
    entry.predicted = control::max(group, entry.predicted);
    entry.measured_peak = control::max(group, entry.measured_peak);
  }
}

}  // namespace ninefold
