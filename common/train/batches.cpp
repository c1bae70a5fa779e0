#include "common/train/batches.h"

#include <numeric>

#include "common/train/micro_batch_graphs.h"

namespace ninefold {

std::vector<MicroBatch> micro_batches(const GlobalBatch& batch, const Task& task, const TrainOptions& options, int rank,
                                      int ranks) {
  const int64_t local = options.local_batch(ranks);
  std::vector<MicroBatch> parts;
  for (int64_t i = 0; i < options.micro_batches; ++i) {
    const int64_t first = rank * local + i * options.micro_batch;
    const auto begin = batch.indices.begin() + first;
    parts.push_back({.step = batch.step,
                     .first_sample = first,
                     .indices = {begin, begin + options.micro_batch},
                     .global_targets = batch.targets(task),
                     .loss_scale = batch.loss_scale,
                     .seed = options.seed,
                     .routing = batch.routing,
                     .replay = batch.replay});
  }
  return parts;
}

Batch rows_at(const Batch& batch, const Task& task, const std::vector<int32_t>& positions) {
  if (positions.empty()) return batch;
  const auto select = [&](const Tensor& rows) {
    const MemoryScope scope(*rows.device(), MemoryKind::data);
    const std::vector<int32_t> all = rows.to_vector<int32_t>();
    std::vector<int32_t> some;
    for (size_t first = 0; first < all.size(); first += static_cast<size_t>(task.rows_per_sample())) {
      for (const int32_t position : positions) some.push_back(all[first + static_cast<size_t>(position)]);
    }
    return Tensor::from(rows.device(), {static_cast<int64_t>(some.size())}, some);
  };
  return {select(batch.x), select(batch.targets), positions};
}

Batch load(const Task& task, const DeviceHandle& device, const MicroBatch& part) {
  return rows_at(task.load(device, Split::train, part.indices), task, part.positions);
}

Step make_step(const Task& task, const DeviceHandle& device, const Batch& batch) {
  const MemoryScope scope(*device, MemoryKind::data);
  std::vector<int32_t> positions = batch.positions;
  if (positions.empty()) {
    positions.resize(static_cast<size_t>(task.rows_per_sample()));
    std::iota(positions.begin(), positions.end(), 0);
  }
  Step step;
  step.rows_per_sample = static_cast<int64_t>(positions.size());
  step.positions = Tensor::from(device, {step.rows_per_sample}, positions);
  step.targets = batch.targets;
  return step;
}

Step make_step(const Task& task, const DeviceHandle& device, const Batch& batch, const MicroBatch& part) {
  Step step = make_step(task, device, batch);
  step.number = part.step;
  step.first_sample = part.first_sample;
  step.global_targets = part.global_targets;
  step.loss_scale = part.loss_scale;
  step.seed = part.seed;
  step.routing = part.routing;
  step.replay = part.replay;
  return step;
}

Score evaluate(Model& model, const Task& task, const DeviceHandle& device, const Batch& batch) {
  const auto [scores, loss_sum] = evaluate(model, batch.x, make_step(task, device, batch));
  return {loss_sum, static_cast<double>(model.loss().count_correct(scores, batch.targets))};
}

double accumulate_gradients(Model& model, const std::vector<Parameter*>& parameters, const Task& task,
                            const DeviceHandle& device, const std::vector<MicroBatch>& micro_batches,
                            bool each_micro_batch, MicroBatchGraphs* graphs) {
  const auto begin = [&](int64_t contributions) {
    for (Parameter* parameter : parameters) parameter->zero_gradient(contributions * parameter->users);
  };
  const auto complete = [&] {
    for (Parameter* parameter : parameters) parameter->complete_gradient();
  };
  double loss_sum = 0;
  if (!each_micro_batch) begin(static_cast<int64_t>(micro_batches.size()));
  for (const MicroBatch& part : micro_batches) {
    if (each_micro_batch) begin(1);
    if (graphs) {
      loss_sum += graphs->forward_backward(part, each_micro_batch || &part == &micro_batches.front());
    } else {
      const Batch batch = load(task, device, part);
      loss_sum += forward_backward(model, batch.x, make_step(task, device, batch, part));
    }
    if (each_micro_batch) complete();
  }
  if (!each_micro_batch) complete();
  return loss_sum;
}

}  // namespace ninefold
