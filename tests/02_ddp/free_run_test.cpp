// Two runs that never see each other, a parallel and a serial one, for 5 steps with clipping. Where the collectives add
// in rank order they keep the same bits in losses, gradients and parameters; elsewhere the same losses up to rounding.
#include "02_ddp/replicate.h"
#include "tests/support/serial_run.h"

namespace ninefold {
namespace {

const std::vector<DdpVariant> all_variants = {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed,
                                              DdpVariant::overlapped};

Outcome train_as(const Job& job, DdpVariant variant) {
  return train(job, [variant](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{variant, 0.05},
                                                         mesh.world().device(), options.grad_dtype);
    return Parallelism{.reduce_gradients = [replicated] { replicated->reduce_gradients(); }};
  });
}

// Whole batches divide by 2, 3, 4 and 8 ranks, and what a rank has of them by the micro-batches.
Job free(Job job, const std::string& collectives, int64_t micro_batches) {
  job.options.collectives = collectives;
  job.options.batch = 24 * micro_batches;
  job.options.micro_batches = micro_batches;
  job.options.steps = 5;
  job.options.clip = 0.5;
  job.options.check = false;
  job.task = task_of(job);
  return job;
}

void expect_the_same_bits(const Outcome& parallel, const SerialRun& serial) {
  ASSERT_EQ(parallel.record.steps.size(), serial.losses.size());
  for (size_t step = 0; step < serial.losses.size(); ++step) {
    EXPECT_EQ(parallel.record.steps[step].loss, serial.losses[step]) << "step " << step;
    EXPECT_EQ(parallel.record.steps[step].gradient_norm, serial.gradient_norms[step]) << "step " << step;
  }
  EXPECT_TRUE(same_bits(parallel.gradients, serial.gradients));
  EXPECT_TRUE(same_bits(parallel.values, serial.values));
}

void expect_the_same_losses(const Outcome& parallel, const SerialRun& serial) {
  ASSERT_EQ(parallel.record.steps.size(), serial.losses.size());
  for (size_t step = 0; step < serial.losses.size(); ++step) {
    EXPECT_NEAR(parallel.record.steps[step].loss, serial.losses[step], 1e-6 * serial.losses[step]) << "step " << step;
  }
}

void expect_ordered_to_keep_the_bits(const Job& small, int64_t micro_batches, const std::vector<DdpVariant>& variants) {
  const Job job = free(small, "ordered", micro_batches);
  const SerialRun serial = serial_run(job, job_size());
  EXPECT_GT(serial.gradient_norms.front(), job.options.clip) << "nothing is clipped";
  for (const DdpVariant variant : variants) {
    SCOPED_TRACE(fmt::format("{}, {} micro-batches, variant {}", job.model, micro_batches, static_cast<int>(variant)));
    expect_the_same_bits(train_as(job, variant), serial);
  }
}

TEST(FreeRun, OrderedKeepsTheBitsOfASerialRun) {
  for (const int64_t micro_batches : {1, 2})
    expect_ordered_to_keep_the_bits(small_llama(), micro_batches, all_variants);
  expect_ordered_to_keep_the_bits(small_mnist_cnn(), 1, {DdpVariant::overlapped});
  expect_ordered_to_keep_the_bits(small_mnist_cnn(), 2, {DdpVariant::bucketed});
}

TEST(WholeProduct, OrderedKeepsTheBitsOfASerialRun) {
  for (const int64_t micro_batches : {1, 2}) {
    expect_ordered_to_keep_the_bits(small_mnist_cnn(), micro_batches, all_variants);
  }
}

TEST(FreeRun, OursKeepsTheLossesOfASerialRun) {
  for (const auto& [small, micro_batches] :
       {std::pair{small_llama(), 1}, std::pair{small_llama(), 2}, std::pair{small_mnist_cnn(), 2}}) {
    SCOPED_TRACE(small.model);
    const Job job = free(small, "ours", micro_batches);
    expect_the_same_losses(train_as(job, DdpVariant::overlapped), serial_run(job, job_size()));
  }
}

}  // namespace
}  // namespace ninefold
