// Data parallelism end to end with the MNIST CNN: it equals the serial model, keeps its books, and its check fails when
// it must.
#include <gtest/gtest.h>

#include "02_ddp/replicate.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

Parallelize replicated_as(DdpVariant variant) {
  return [variant](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{variant, 0.05},
                                                         mesh.world().device(), options.grad_dtype);
    return Parallelism{.reduce_gradients = [replicated] { replicated->reduce_gradients(); },
                       .predict_traffic = [replicated](TrafficLedger& ledger,
                                                       int64_t steps) { replicated->predict_traffic(ledger, steps); }};
  };
}

TEST(MnistCnn, EqualsTheSerialModelInEveryVariant) {
  for (const DdpVariant variant : {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed, DdpVariant::overlapped}) {
    const Outcome outcome = train(small_mnist_cnn(), replicated_as(variant));
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_TRUE(outcome.record.check.passed);
    EXPECT_EQ(outcome.record.check.steps, 4);
    EXPECT_LE(outcome.record.check.gradient_max_rel, 1e-5);
    EXPECT_EQ(outcome.record.check.parameter_max_rel, 0);
    expect_balanced_books(outcome.record);
  }
}

TEST(MnistCnn, EqualsTheSerialModelWithMicroBatches) {
  Job job = small_mnist_cnn();
  job.options.micro_batch = 1;
  const Outcome outcome = train(job, replicated_as(DdpVariant::flat));
  EXPECT_EQ(outcome.exit_code, 0);
  expect_balanced_books(outcome.record);
}

TEST(MnistCnn, EqualsTheSerialModelInBf16) {
  Job job = small_mnist_cnn();
  job.options.dtype = Dtype::bf16;
  EXPECT_EQ(train(job, replicated_as(DdpVariant::flat)).exit_code, 0);
}

TEST(Llama, EqualsTheSerialModelInEveryVariant) {
  for (const DdpVariant variant : {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed, DdpVariant::overlapped}) {
    const Outcome outcome = train(small_llama(), replicated_as(variant));
    EXPECT_EQ(outcome.exit_code, 0);
    expect_balanced_books(outcome.record);
  }
}

TEST(Check, FailsUnderEveryWrongOperationOfTheCnn) {
  expect_the_check_to_find(mnist_cnn_faults, small_mnist_cnn(), replicated_as(DdpVariant::flat));
}

TEST(Check, FailsUnderEveryWrongAllReduce) {
  expect_the_check_to_find_wrong_all_reduces(small_llama(), replicated_as(DdpVariant::naive));
  expect_the_check_to_find_wrong_all_reduces(small_mnist_cnn(), replicated_as(DdpVariant::flat));
}

}  // namespace
}  // namespace ninefold
