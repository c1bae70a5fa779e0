// Training in f16 with a loss scale that is too large at first: all ranks skip the same steps, as the serial model
// does.
#include <limits>

#include "tests/support/serial_run.h"
#include "tests/support/sharded.h"

namespace ninefold {
namespace {

// Overflows in the first steps, and again each time the scale has grown.
Job overflowing_llama(Dtype stored = Dtype::f16) {
  Job job = odd_llama();
  job.options.dtype = stored;
  job.options.loss_scaling = {.init_scale = 0x1p26, .growth_interval = 2};
  job.options.steps = 8;
  return job;
}

// The scale of every step follows from what became of the steps before.
void expect_scales(const std::vector<StepRecord>& steps, const LossScaling& settings) {
  LossScaler expected(settings, true);
  int64_t skipped = 0;
  for (const StepRecord& step : steps) {
    EXPECT_EQ(step.loss_scale, expected.scale()) << "step " << step.step;
    EXPECT_EQ(step.skipped, !std::isfinite(step.gradient_norm));
    expected.update(step.skipped);
    skipped += step.skipped;
  }
  EXPECT_GE(skipped, 3);
  EXPECT_LT(skipped, static_cast<int64_t>(steps.size()) - 2);
  EXPECT_FALSE(steps.back().skipped && steps[2].skipped) << "every checked step overflows";
}

TEST(LossScale, SkipsTheStepsThatTheSerialModelSkips) {
  for (const int64_t stage : {1, 2, 3}) {
    const Job job = overflowing_llama();
    expect_scales(expect_identical(job, {.stage = stage}).record.steps, job.options.loss_scaling);
  }
}

TEST(LossScale, OfF32Shards) {
  const Job job = overflowing_llama(Dtype::f32);
  const RunRecord record = expect_identical(job, {.param_dtype = Dtype::f16}).record;
  expect_scales(record.steps, job.options.loss_scaling);
}

// Two runs that never see each other.
TEST(LossScale, KeepsTheBitsOfASerialRun) {
  Job job = overflowing_llama();
  job.options.check = false;
  const SerialRun serial = serial_run(job, job_size());
  const Outcome parallel = train_with(job, {.stage = 1});
  for (size_t step = 0; step < serial.losses.size(); ++step) {
    EXPECT_EQ(parallel.record.steps[step].loss, serial.losses[step]) << "step " << step;
    EXPECT_EQ(parallel.record.steps[step].loss_scale, serial.loss_scales[step]) << "step " << step;
    EXPECT_EQ(parallel.record.steps[step].gradient_norm, serial.gradient_norms[step]) << "step " << step;
  }
}

// An overflow in one element that one rank owns.
TEST(LossScale, OneRanksOverflowIsEveryRanks) {
  for (const int64_t stage : {1, 2, 3}) {
    Job job = odd_llama();
    job.options.dtype = Dtype::f16;
    job.options.check = false;
    int step = 0;
    const RunRecord record =
        train_with(job, {.stage = stage}, [&](Model& model, const Mesh& mesh, Parallelism& parallelism) {
          parallelism.reduce_gradients = [&, reduce = parallelism.reduce_gradients] {
            reduce();
            const Tensor gradient = parameters_of(model).back()->owned.gradient;
            const bool is_it = step++ == 1 && mesh["dp_shard"].rank() == mesh["dp_shard"].size() - 1;
            if (is_it) gradient.data<float>()[gradient.size() - 1] = std::numeric_limits<float>::infinity();
          };
        }).record;
    for (size_t i = 0; i < record.steps.size(); ++i) EXPECT_EQ(record.steps[i].skipped, i == 1) << "step " << i;
    EXPECT_EQ(record.steps[1].loss_scale, 65536);
    EXPECT_EQ(record.steps[2].loss_scale, 32768);
    EXPECT_TRUE(record.books_balanced);
  }
}

// A rank that updates although the others skip is found out.
TEST(LossScale, TheCheckFindsAnOverflowThatTheSerialModelHasNot) {
  Job job = odd_llama();
  job.options.dtype = Dtype::f16;
  const Outcome outcome = train_with(job, {}, [&](Model& model, const Mesh&, Parallelism& parallelism) {
    parallelism.reduce_gradients = [&, reduce = parallelism.reduce_gradients] {
      reduce();
      ops::fill_(parameters_of(model).front()->owned.gradient, std::numeric_limits<float>::quiet_NaN());
    };
  });
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_FALSE(outcome.record.check.passed);
}

}  // namespace
}  // namespace ninefold
