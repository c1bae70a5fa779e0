// Data parallelism end to end, whoever carries the collectives: it equals the serial model, to the bit where it claims
// so, keeps its books, and its check fails when it must.
#include "02_ddp/replicate.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

Parallelize replicated_as(DdpVariant variant, Dtype reduce = Dtype::f32) {
  return [=](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{variant, 0.05, reduce},
                                                         mesh.world().device(), options.grad_dtype);
    Parallelism parallelism = replicated->parallelism();
    parallelism.technique = replicated;
    return parallelism;
  };
}

constexpr DdpVariant variants[] = {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed, DdpVariant::overlapped};

// The parameter is what --collectives takes.
class DataParallel : public testing::TestWithParam<const char*> {
 protected:
  // Sums of two have no order; of three and more only `ordered` keeps that of the serial run, and in f32.
  static Numerics claim(Dtype reduce) {
    const bool ordered = GetParam() == std::string("ordered") && reduce == Dtype::f32;
    return job_size() <= 2 || ordered ? Numerics::bit_identical : Numerics::bounded;
  }

  static void expect_equal(const Job& job, DdpVariant variant, Dtype reduce = Dtype::f32) {
    const RunRecord record = train(job, replicated_as(variant, reduce)).record;
    EXPECT_TRUE(record.check.passed);
    EXPECT_EQ(record.check.steps, 4);
    EXPECT_EQ(record.numerics, claim(reduce));
    if (record.numerics == Numerics::bit_identical) {
      EXPECT_EQ(record.check.loss_max_abs, 0);
      EXPECT_EQ(record.check.gradient_max_rel, 0);
    } else if (job.options.dtype == Dtype::f32) {
      EXPECT_LE(record.check.gradient_max_rel, 1e-5);
    }
    EXPECT_EQ(record.check.parameter_max_rel, 0);
    expect_balanced_books(record);
  }
};

TEST_P(DataParallel, EqualsTheSerialModelInEveryVariant) {
  for (const DdpVariant variant : variants) {
    expect_equal(small_llama(GetParam()), variant);
    expect_equal(small_mnist_cnn(GetParam()), variant);
  }
}

TEST_P(DataParallel, EqualsTheSerialModelWithMicroBatches) {
  for (Job job : {small_llama(GetParam()), small_mnist_cnn(GetParam())}) {
    job.options.micro_batch = 1;
    expect_equal(job, DdpVariant::overlapped);
  }
}

TEST_P(DataParallel, EqualsTheSerialModelInBf16AndF16) {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    for (Job job : {small_llama(GetParam()), small_mnist_cnn(GetParam())}) {
      job.options.dtype = dtype;
      expect_equal(job, DdpVariant::overlapped);
    }
  }
}

TEST_P(DataParallel, EqualsTheSerialModelWithGradientsInBf16) {
  for (Job job : {small_llama(GetParam()), small_mnist_cnn(GetParam())}) {
    job.options.dtype = job.options.grad_dtype = Dtype::bf16;
    expect_equal(job, DdpVariant::overlapped);
  }
  Job job = small_llama(GetParam());
  job.options.dtype = job.options.grad_dtype = Dtype::bf16;
  expect_equal(job, DdpVariant::naive);
  expect_equal(job, DdpVariant::overlapped, /*reduce=*/Dtype::bf16);
}

// Sums in another order are right up to rounding: whoever claims more is found out.
TEST_P(DataParallel, CheckAllowsSumsInAnotherOrderOnlyWhereNoOrderIsClaimed) {
  for (Job job : {small_llama(GetParam()), small_mnist_cnn(GetParam())}) {
    job.collective_fault = CollectiveFault::reorder_sums;
    const bool claims_an_order = job_size() > 2 && GetParam() == std::string("ordered");
    EXPECT_EQ(train(job, replicated_as(DdpVariant::flat)).record.check.passed, !claims_an_order);
  }
}

INSTANTIATE_TEST_SUITE_P(Collectives, DataParallel, testing::Values("ours", "ordered", "mpi"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Check, FailsUnderEveryWrongAllReduce) {
  expect_the_check_to_find_wrong_all_reduces(small_llama(), replicated_as(DdpVariant::naive));
  expect_the_check_to_find_wrong_all_reduces(small_mnist_cnn(), replicated_as(DdpVariant::flat));
}

TEST(Check, FailsUnderEveryWrongOperationOfTheCnn) {
  expect_the_check_to_find(mnist_cnn_faults, small_mnist_cnn(), replicated_as(DdpVariant::flat));
}

}  // namespace
}  // namespace ninefold
