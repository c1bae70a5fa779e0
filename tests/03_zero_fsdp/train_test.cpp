// ZeRO 1, 2, 3 end to end: to the bit the serial model under ordered collectives, its books to the byte.
#include "03_zero_fsdp/sharding.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

Parallelize sharded_by(ShardingPolicy policy) {
  return [policy](Model& model, const Mesh& mesh, const TrainOptions& options) mutable {
    TrainOptions types = options;
    policy.settle_types(types);
    const std::shared_ptr<Sharding> sharding =
        shard(model, {mesh["dp_shard"], mesh["dp_replicate"]}, policy, mesh.world().device());
    Parallelism parallelism = sharding->parallelism(options.micro_batches);
    parallelism.technique = sharding;
    return parallelism;
  };
}

// A job for 1, 2, 3, 4 and 8 ranks.
Job job_over(int replicas, Job job) {
  job.mesh = {{"dp_replicate", replicas}, {"dp_shard", 0}};
  job.options.batch = 48;
  return job;
}
Job ordered_llama(int replicas = 1) { return job_over(replicas, small_llama("ordered")); }

void expect_identical(const Job& job, const ShardingPolicy& policy) {
  const RunRecord record = train(job, sharded_by(policy)).record;
  SCOPED_TRACE(fmt::format("stage {}, wrap {}, prefetch {}, reshard {}", policy.stage, policy.wrap, policy.prefetch,
                           static_cast<int>(policy.reshard)));
  EXPECT_EQ(record.numerics, Numerics::bit_identical);
  EXPECT_TRUE(record.check.passed);
  EXPECT_EQ(record.check.loss_max_abs, 0);
  EXPECT_EQ(record.check.gradient_max_rel, 0);
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  EXPECT_TRUE(record.books_balanced);
  expect_balanced_books(record);
}

TEST(Sharded, EveryStageIsTheSerialModel) {
  for (const int64_t stage : {1, 2, 3}) expect_identical(ordered_llama(), {.stage = stage});
}

TEST(Sharded, EveryPolicyIsTheSerialModel) {
  for (const Reshard reshard : {Reshard::standard, Reshard::always, Reshard::never}) {
    for (const int64_t prefetch : {0, 1, 2}) {
      expect_identical(ordered_llama(), {.reshard = reshard, .prefetch = prefetch});
    }
  }
}

TEST(Sharded, EveryDivisionIntoUnitsIsTheSerialModel) {
  for (const char* wrap : {"tok_embeddings,layers.*,norm,output", "layers.*,layers.*.attention",
                           "layers.*.feed_forward", "size:2000", "size:1000000"}) {
    expect_identical(ordered_llama(), {.wrap = wrap});
  }
}

TEST(Sharded, AccumulatesBothWays) {
  for (const int64_t stage : {1, 2, 3}) {
    for (const bool each : {false, true}) {
      if (stage == 1 && each) continue;
      Job job = ordered_llama();
      job.options.micro_batches = job_size() == 8 ? 2 : 4;
      expect_identical(job, {.stage = stage, .reduce_each_micro_batch = each});
    }
  }
}

// On one rank, the root's embedding excepted, its shards are what they would be anyway.
TEST(Sharded, ParameterCountsThatNothingDivides) {
  Job job = ordered_llama();
  job.options.llama = {.dim = 36, .layers = 2, .heads = 2, .kv_heads = 1, .ffn = 50, .vocab = 257};
  for (const int64_t stage : {1, 2, 3}) expect_identical(job, {.stage = stage});
}

TEST(Sharded, ReplicasOfShards) {
  if (job_size() % 2 != 0) return;  // one and three ranks are no pairs
  for (const int64_t stage : {1, 2, 3}) expect_identical(ordered_llama(2), {.stage = stage});
  Job job = ordered_llama(2);
  job.options.micro_batches = 2;
  expect_identical(job, {.reduce_each_micro_batch = true});
}

TEST(Sharded, MnistCnnAsTheExampleWrapsIt) {
  Job job = job_over(1, small_mnist_cnn("ordered"));
  job.options.steps = 2;  // gathering a million parameters to compare them takes longer than a step
  for (const int64_t stage : {1, 2, 3}) expect_identical(job, {.stage = stage, .wrap = "size:20000"});
}

TEST(Sharded, InBf16WithF32Gradients) {
  for (const int64_t stage : {1, 2, 3}) {
    Job job = ordered_llama();
    job.options.dtype = Dtype::bf16;
    expect_identical(job, {.stage = stage});
  }
}

TEST(Sharded, SumsBf16GradientsInF32) {
  for (const int64_t stage : {1, 2, 3}) {
    Job job = ordered_llama();
    job.options.dtype = job.options.grad_dtype = Dtype::bf16;
    expect_identical(job, {.stage = stage});
  }
}

TEST(Sharded, StaysWithinTheBoundOnOtherCollectives) {
  for (const char* collectives : {"ours", "mpi"}) {
    for (const int64_t stage : {1, 2, 3}) {
      const RunRecord record = train(job_over(1, small_llama(collectives)), sharded_by({.stage = stage})).record;
      EXPECT_TRUE(record.check.passed);
      EXPECT_TRUE(record.books_balanced) << collectives;
      expect_balanced_books(record);
    }
  }
}

// Evaluations gather too; the samples do not divide by the ranks.
TEST(Sharded, EvaluatesBetweenSteps) {
  Job job = ordered_llama();
  job.options.eval_every = 1;
  job.options.eval_batches = 1;
  job.options.micro_batch = 1;
  expect_identical(job, {});
}

TEST(Sharded, TheCheckFindsWrongCollectives) {
  if (job_size() == 1) return;  // nothing is sent
  for (const CollectiveFault fault : all_collective_faults) {
    if (fault == CollectiveFault::reorder_sums && job_size() == 2) continue;  // a sum of two has no order
    Job job = ordered_llama();
    job.options.steps = 2;
    job.collective_fault = fault;
    const Outcome outcome = train(job, sharded_by({}));
    EXPECT_EQ(outcome.exit_code, 1) << "fault " << static_cast<int>(fault);
    EXPECT_FALSE(outcome.record.check.passed) << "fault " << static_cast<int>(fault);
  }
}

}  // namespace
}  // namespace ninefold
