// The combined trainer end to end: it equals the serial model, keeps its books, and its check fails when it must.
#include <gtest/gtest.h>

#include "09_combined_3d/parallelize.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

TEST(Train, EqualsTheSerialModel) {
  const Outcome outcome = train(small_llama(), parallelize);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.record.check.passed);
  EXPECT_EQ(outcome.record.check.steps, 4);
  EXPECT_LE(outcome.record.check.gradient_max_rel, 1e-5);
  EXPECT_EQ(outcome.record.check.parameter_max_rel, 0);
  EXPECT_LT(outcome.record.steps.back().loss, outcome.record.steps.front().loss);
}

TEST(Train, EqualsTheSerialModelWithMicroBatches) {
  Job job = small_llama();
  job.options.micro_batch = 1;
  EXPECT_EQ(train(job, parallelize).exit_code, 0);
}

TEST(Train, EqualsTheSerialModelInBf16AndF16) {
  for (const auto& [dtype, gradient] :
       {std::pair(Dtype::bf16, Dtype::f32), {Dtype::bf16, Dtype::bf16}, {Dtype::f16, Dtype::f32}}) {
    Job job = small_llama();
    job.options.dtype = dtype;
    job.options.grad_dtype = gradient;
    EXPECT_EQ(train(job, parallelize).exit_code, 0) << name_of(dtype) << ", gradients " << name_of(gradient);
  }
}

TEST(Train, BooksBalanceToTheByte) {
  for (const int64_t micro_batch : {0, 1}) {
    Job job = small_llama();
    job.options.micro_batch = micro_batch;
    expect_balanced_books(train(job, parallelize).record);
  }
}

TEST(Train, TheSameCommandGivesTheSameBits) {
  const RunRecord first = train(small_llama(), parallelize).record, second = train(small_llama(), parallelize).record;
  ASSERT_EQ(first.steps.size(), second.steps.size());
  for (size_t i = 0; i < first.steps.size(); ++i) {
    EXPECT_EQ(first.steps[i].loss, second.steps[i].loss);
    EXPECT_EQ(first.steps[i].gradient_norm, second.steps[i].gradient_norm);
  }
}

// Micro-batches group the sums differently, no more: a free run keeps its losses.
TEST(Train, MicroBatchesChangeNoLossBeyondRounding) {
  Job job = small_llama();
  const RunRecord whole = train(job, parallelize).record;
  job.options.micro_batch = 1;
  const RunRecord parts = train(job, parallelize).record;
  for (size_t i = 0; i < whole.steps.size(); ++i) EXPECT_NEAR(whole.steps[i].loss, parts.steps[i].loss, 1e-6);
}

TEST(Check, FailsUnderEveryWrongOperation) { expect_the_check_to_find(llama_faults, small_llama(), parallelize); }

TEST(Check, FailsUnderEveryWrongAllReduce) { expect_the_check_to_find_wrong_all_reduces(small_llama(), parallelize); }

TEST(Check, AllowsSumsInAnotherOrder) {
  Job job = small_llama();
  job.collective_fault = CollectiveFault::reorder_sums;
  EXPECT_TRUE(train(job, parallelize).record.check.passed);
}

TEST(Train, ALossThatIsNotFiniteSaysStepAndRank) {
  Job job = small_llama();
  job.options.check = false;
  job.options.clip = 0;
  job.options.schedule.lr = 1e30;
  try {
    train(job, parallelize);
    FAIL() << "the loss should have overflowed";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("the loss of step"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(fmt::format("on rank {}", job_rank())), std::string::npos);
  }
}

}  // namespace
}  // namespace ninefold
