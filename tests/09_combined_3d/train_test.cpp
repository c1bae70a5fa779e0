// The combined trainer end to end: it equals the serial model, keeps its books, and its check fails when it must.
#include <gtest/gtest.h>

#include "09_combined_3d/parallelize.h"
#include "tests/support/faulty_collectives.h"
#include "tests/support/faulty_kernels.h"

namespace ninefold {
namespace {

struct Outcome {
  int exit_code;
  RunRecord record;
};

struct Job {
  TrainOptions options;
  CollectivesFactory collectives = mpi_collectives();
  std::function<std::unique_ptr<Kernels>(std::unique_ptr<Kernels>)> decorate;
};

// A Llama of 60 thousand parameters, 12 sequences a step: they divide by 1, 2, 3 and 4 ranks.
Job small() {
  Job job;
  job.options.llama = {.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = 256};
  job.options.length = 16;
  job.options.batch = 12;
  job.options.steps = 4;
  job.options.schedule.warmup = 1;
  job.options.clip = 0.5;
  job.options.measure_peak = false;
  return job;
}

Outcome train(Job job) {
  TrainOptions& options = job.options;
  const Options command_line("train_test", "");
  World world(options.world(), job.collectives);
  if (job.decorate) world.device()->decorate_kernels(job.decorate);
  const Mesh mesh(world, {{"dp_replicate", 0}});
  options.resolve(mesh.size("dp_replicate"));
  const auto task = make_task("llama", options);
  const auto model = task->make_model();
  const Parallelism parallelism = parallelize(*model, mesh, options);
  materialize(*model, world.device(), options.precision(), options.seed);
  Trainer trainer("train_test", options, command_line, mesh, mesh["dp_replicate"], *task, *model, parallelism);
  const int exit_code = trainer.run();
  return {exit_code, trainer.record()};
}

CollectivesFactory faulty(CollectiveFault fault) {
  return [fault](Transport& transport) -> std::unique_ptr<Collectives> {
    return std::make_unique<FaultyCollectives>(mpi_collectives()(transport), fault, transport.rank(), transport.size());
  };
}

TEST(Train, EqualsTheSerialModel) {
  const Outcome outcome = train(small());
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.record.check.passed);
  EXPECT_EQ(outcome.record.check.steps, 4);
  EXPECT_LE(outcome.record.check.gradient_max_rel, 1e-5);
  EXPECT_EQ(outcome.record.check.parameter_max_rel, 0);
  EXPECT_LT(outcome.record.steps.back().loss, outcome.record.steps.front().loss);
}

TEST(Train, EqualsTheSerialModelWithMicroBatches) {
  Job job = small();
  job.options.micro_batch = 1;
  EXPECT_EQ(train(job).exit_code, 0);
}

TEST(Train, EqualsTheSerialModelInBf16) {
  for (const Dtype gradient : {Dtype::f32, Dtype::bf16}) {
    Job job = small();
    job.options.dtype = Dtype::bf16;
    job.options.grad_dtype = gradient;
    EXPECT_EQ(train(job).exit_code, 0) << name_of(gradient);
  }
}

TEST(Train, BooksBalanceToTheByte) {
  for (const int64_t micro_batch : {0, 1}) {
    Job job = small();
    job.options.micro_batch = micro_batch;
    const RunRecord record = train(job).record;
    for (const MemoryRecord& entry : record.memory) {
      if (entry.kind == MemoryKind::parameters || entry.kind == MemoryKind::gradients ||
          entry.kind == MemoryKind::optimizer) {
        EXPECT_GT(entry.predicted, 0);
        EXPECT_EQ(entry.predicted, entry.measured_peak) << name_of(entry.kind);
      }
      if (entry.kind == MemoryKind::activations) {
        EXPECT_NEAR(static_cast<double>(entry.predicted), static_cast<double>(entry.measured_peak),
                    0.02 * static_cast<double>(entry.predicted));
      }
    }
    for (const auto& [dimension, operations] : record.traffic) {
      for (const auto& [operation, entry] : operations) {
        EXPECT_EQ(entry.calls, entry.predicted_calls) << dimension << " " << name_of(operation);
        EXPECT_EQ(entry.bytes, entry.predicted_bytes) << dimension << " " << name_of(operation);
      }
    }
  }
}

TEST(Train, TheSameCommandGivesTheSameBits) {
  const RunRecord first = train(small()).record, second = train(small()).record;
  ASSERT_EQ(first.steps.size(), second.steps.size());
  for (size_t i = 0; i < first.steps.size(); ++i) {
    EXPECT_EQ(first.steps[i].loss, second.steps[i].loss);
    EXPECT_EQ(first.steps[i].gradient_norm, second.steps[i].gradient_norm);
  }
}

// Micro-batches group the sums differently, no more: a free run keeps its losses.
TEST(Train, MicroBatchesChangeNoLossBeyondRounding) {
  Job job = small();
  const RunRecord whole = train(job).record;
  job.options.micro_batch = 1;
  const RunRecord parts = train(job).record;
  for (size_t i = 0; i < whole.steps.size(); ++i) EXPECT_NEAR(whole.steps[i].loss, parts.steps[i].loss, 1e-6);
}

TEST(Check, FailsUnderEveryWrongOperation) {
  for (const KernelFault fault : all_kernel_faults) {
    Job job = small();
    job.decorate = [fault](std::unique_ptr<Kernels> inner) {
      return std::make_unique<FaultyKernels>(std::move(inner), fault);
    };
    const Outcome outcome = train(job);
    EXPECT_EQ(outcome.exit_code, 1) << "fault " << static_cast<int>(fault);
    EXPECT_FALSE(outcome.record.check.passed) << "fault " << static_cast<int>(fault);
  }
}

TEST(Check, FailsUnderEveryWrongAllReduce) {
  if (job_size() == 1) return;  // one rank communicates with nobody: the other rank counts run this
  for (const CollectiveFault fault : {CollectiveFault::scale_by_two, CollectiveFault::divide_twice,
                                      CollectiveFault::drop_one_rank, CollectiveFault::stale_buffer,
                                      CollectiveFault::wrong_group}) {
    Job job = small();
    job.collectives = faulty(fault);
    EXPECT_EQ(train(job).exit_code, 1) << "fault " << static_cast<int>(fault);
  }
}

TEST(Check, AllowsSumsInAnotherOrder) {
  Job job = small();
  job.collectives = faulty(CollectiveFault::reorder_sums);
  EXPECT_TRUE(train(job).record.check.passed);
}

TEST(Train, ALossThatIsNotFiniteSaysStepAndRank) {
  Job job = small();
  job.options.check = false;
  job.options.clip = 0;
  job.options.schedule.lr = 1e30;
  try {
    train(job);
    FAIL() << "the loss should have overflowed";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("the loss of step"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(fmt::format("on rank {}", job_rank())), std::string::npos);
  }
}

}  // namespace
}  // namespace ninefold
