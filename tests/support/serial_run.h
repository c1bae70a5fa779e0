// A training run on this rank alone, that shares nothing with the trainer but its data and its options.
#pragma once

#include <cmath>
#include <vector>

#include "common/data/sampler.h"
#include "common/optim/clip.h"
#include "tests/support/training.h"

namespace ninefold {

// What a run leaves behind, by step and by parameter.
struct SerialRun {
  std::vector<double> losses, gradient_norms, loss_scales;
  Elements gradients, values;
};

// Sums are grouped as `data_ranks` ranks would group them: one gradient a rank, added up in rank order.
inline SerialRun serial_run(const Job& job, int data_ranks) {
  TrainOptions options = job.options;
  options.resolve(data_ranks);
  const DeviceHandle device = make_cpu_device();
  const auto task = task_of(job);
  const auto model = task->make_model();
  materialize(*model, device, options.precision(), options.seed);
  const auto parameters = parameters_of(*model);
  const auto optimizer = make_optimizer(options.optimizer, parameters, options.seed);
  DistributedSampler sampler({.samples = task->samples(Split::train), .batch = options.batch, .seed = options.seed}, 1,
                             0);
  LossScaler scaler = options.loss_scaler();
  SerialRun run;
  for (int64_t step = 0; step < options.steps; ++step) {
    const DataPosition position = sampler.position_of(step);
    const GlobalBatch batch{step, sampler.global_batch(position), scaler.scale()};
    double loss = 0;
    std::vector<Tensor> sums;
    for (int rank = 0; rank < data_ranks; ++rank) {
      loss += accumulate_gradients(*model, parameters, *task, device,
                                   micro_batches(batch, *task, options, rank, data_ranks));
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (rank == 0) sums.push_back(copy_of(parameters[i]->gradient));
        if (rank > 0) ops::add_(sums[i], parameters[i]->gradient);
      }
    }
    for (size_t i = 0; i < parameters.size(); ++i) ops::copy_(parameters[i]->gradient, sums[i]);
    unscale(parameters, scaler);
    run.loss_scales.push_back(scaler.scale());
    run.losses.push_back(loss / static_cast<double>(batch.targets(*task)));
    run.gradient_norms.push_back(std::sqrt(gradient_squares(parameters).value()));
    const bool overflowed = scaler.overflows(run.gradient_norms.back());
    if (!overflowed) {
      optimizer->step(options.lr_at(step, position.epoch), clip_factor(run.gradient_norms.back(), options.clip));
    }
    scaler.update(overflowed);
  }
  run.gradients = elements_of(parameters, &Parameter::Owned::gradient);
  run.values = elements_of(parameters, &Parameter::Owned::value);
  return run;
}

}  // namespace ninefold
