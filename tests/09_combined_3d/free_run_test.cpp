// Two runs that never see each other, the parallel one and a serial one, keep the same losses.
#include <gtest/gtest.h>

#include "09_combined_3d/parallelize.h"
#include "common/data/sampler.h"
#include "common/optim/clip.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

// Trains on this rank alone, with nothing of the trainer but its data.
std::vector<double> serial_losses(TrainOptions options) {
  options.resolve(/*data_ranks=*/1);
  const DeviceHandle device = make_cpu_device();
  const auto task = make_task("llama", options);
  const auto model = task->make_model();
  materialize(*model, device, options.precision(), options.seed);
  const auto parameters = parameters_of(*model);
  const auto optimizer = make_optimizer(options.optimizer, parameters, options.seed);
  DistributedSampler sampler({.samples = task->samples(Split::train), .batch = options.batch, .seed = options.seed}, 1,
                             0);
  std::vector<double> losses;
  for (int64_t step = 0; step < options.steps; ++step) {
    const GlobalBatch batch{step, sampler.global_batch(sampler.position_of(step))};
    const double loss_sum =
        accumulate_gradients(*model, parameters, *task, device, micro_batches(batch, *task, options, 0, 1));
    losses.push_back(loss_sum / static_cast<double>(batch.targets(*task)));
    const double norm = std::sqrt(gradient_squares(parameters).value());
    optimizer->step(options.lr_at(step, 0), clip_factor(norm, options.clip));
  }
  return losses;
}

TEST(FreeRun, KeepsTheLossesOfASerialRun) {
  Job job = small_llama();
  job.options.steps = 8;
  job.options.check = false;
  const auto parallel = train(job, parallelize).record.steps;
  const auto serial = serial_losses(job.options);
  ASSERT_EQ(parallel.size(), serial.size());
  for (size_t step = 0; step < serial.size(); ++step) {
    EXPECT_NEAR(parallel[step].loss, serial[step], 1e-6 * serial[step]) << "step " << step;
  }
  EXPECT_LT(serial.back(), serial.front() - 0.1) << "the comparison says something only while the model learns";
}

}  // namespace
}  // namespace ninefold
