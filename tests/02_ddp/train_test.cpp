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

struct Types {
  Dtype compute, gradients = Dtype::f32, reduce = Dtype::f32;
};
constexpr Types f32{Dtype::f32}, bf16{Dtype::bf16}, f16{Dtype::f16}, bf16_gradients{Dtype::bf16, Dtype::bf16},
    bf16_sums{Dtype::bf16, Dtype::bf16, Dtype::bf16};
constexpr Types all_types[] = {f32, bf16, f16, bf16_gradients, bf16_sums};

constexpr DdpVariant variants[] = {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed, DdpVariant::overlapped};
constexpr const char* carriers[] = {"ours", "ordered", "mpi"};

struct Configuration {
  DdpVariant variant;
  const char* collectives;
  Types types = f32;
  int64_t micro_batch = 0;  // 0: all samples of a rank at once

  void apply(TrainOptions& options) const {
    options.collectives = collectives;
    options.dtype = types.compute;
    options.grad_dtype = types.gradients;
    options.micro_batch = micro_batch;
  }
  // Sums of two have no order; of three and more only `ordered` keeps that of the serial run, and in f32.
  Numerics claim() const {
    const bool in_order = collectives == std::string("ordered") && types.reduce == Dtype::f32;
    return job_size() <= 2 || in_order ? Numerics::bit_identical : Numerics::bounded;
  }
};

void expect_equal(Job job, const Configuration& configuration) {
  SCOPED_TRACE(fmt::format("{}, variant {}, {}, {} with gradients in {}, micro-batch {}", job.model,
                           static_cast<int>(configuration.variant), configuration.collectives,
                           name_of(configuration.types.compute), name_of(configuration.types.gradients),
                           configuration.micro_batch));
  configuration.apply(job.options);
  const RunRecord record = train(job, replicated_as(configuration.variant, configuration.types.reduce)).record;
  EXPECT_TRUE(record.check.passed);
  EXPECT_EQ(record.check.steps, job.options.steps);
  EXPECT_EQ(record.numerics, configuration.claim());
  if (record.numerics == Numerics::bit_identical) {
    EXPECT_EQ(record.check.loss_max_abs, 0);
    EXPECT_EQ(record.check.gradient_max_rel, 0);
  } else if (job.options.dtype == Dtype::f32) {
    EXPECT_LE(record.check.gradient_max_rel, 1e-5);
  }
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  expect_balanced_books(record);
}

TEST(DataParallel, LlamaEqualsTheSerialModel) {
  for (const char* collectives : carriers) {
    for (const DdpVariant variant : variants) expect_equal(small_llama(), {variant, collectives});
    expect_equal(small_llama(), {DdpVariant::overlapped, collectives, f32, /*micro_batch=*/1});
    for (const Types& types : {bf16, f16, bf16_gradients, bf16_sums}) {
      expect_equal(small_llama(), {DdpVariant::overlapped, collectives, types});
    }
    expect_equal(small_llama(), {DdpVariant::naive, collectives, bf16_gradients});
  }
}

// Every variant, carrier, type and division, and every two of the first three that matter to each other. Two steps:
// gathering a million parameters to compare them takes longer than a step.
TEST(DataParallel, CnnEqualsTheSerialModel) {
  Job job = small_mnist_cnn();
  job.options.steps = 2;
  for (const Configuration& configuration : {Configuration{DdpVariant::naive, "ordered"},
                                             {DdpVariant::flat, "mpi", bf16},
                                             {DdpVariant::bucketed, "ours", bf16_gradients},
                                             {DdpVariant::overlapped, "ordered", f16},
                                             {DdpVariant::overlapped, "ours", f32, /*micro_batch=*/1},
                                             {DdpVariant::overlapped, "mpi"}}) {
    expect_equal(job, configuration);
  }
}

TEST(WholeProduct, EqualsTheSerialModel) {
  for (const Job& job : {small_llama(), small_mnist_cnn()}) {
    for (const DdpVariant variant : variants) {
      for (const char* collectives : carriers) {
        for (const Types& types : all_types) {
          for (const int64_t micro_batch : {0, 1}) expect_equal(job, {variant, collectives, types, micro_batch});
        }
      }
    }
  }
}

// Sums in another order are right up to rounding: whoever claims more is found out.
void expect_the_check_to_allow_another_order(Job job, const std::string& collectives) {
  job.options.collectives = collectives;
  job.options.steps = 2;
  job.collective_fault = CollectiveFault::reorder_sums;
  const bool claims_an_order = job_size() > 2 && collectives == "ordered";
  EXPECT_EQ(train(job, replicated_as(DdpVariant::flat)).record.check.passed, !claims_an_order);
}

TEST(Check, AllowsSumsInAnotherOrderOnlyWhereNoOrderIsClaimed) {
  for (const char* collectives : carriers) expect_the_check_to_allow_another_order(small_llama(), collectives);
  expect_the_check_to_allow_another_order(small_mnist_cnn(), "ordered");
}

TEST(Check, FailsUnderEveryWrongAllReduce) {
  expect_the_check_to_find_wrong_all_reduces(small_llama(), replicated_as(DdpVariant::naive));
}

// The operations are each rank's own: two ranks are as good as eight.
TEST(Check, FailsUnderEveryWrongOperationOfTheCnn) {
  if (job_size() > 2) return;
  expect_the_check_to_find(mnist_cnn_faults, small_mnist_cnn(), replicated_as(DdpVariant::flat));
}

TEST(WholeProduct, OfModelsAndFaults) {
  expect_the_check_to_find_wrong_all_reduces(small_mnist_cnn(), replicated_as(DdpVariant::flat));
  expect_the_check_to_find(mnist_cnn_faults, small_mnist_cnn(), replicated_as(DdpVariant::flat));
  for (const char* collectives : carriers) expect_the_check_to_allow_another_order(small_mnist_cnn(), collectives);
}

}  // namespace
}  // namespace ninefold
