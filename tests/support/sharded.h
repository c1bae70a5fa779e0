// Training runs under chapter 03's sharding.
#pragma once

#include "03_zero_fsdp/sharding.h"
#include "tests/support/training.h"

namespace ninefold {

// A Llama whose units pad on every number of ranks.
inline Job odd_llama(const std::string& collectives = "ordered") {
  Job job = small_llama(collectives);
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}};
  job.options.steps = 3;
  job.options.llama = {.dim = 36, .layers = 2, .heads = 2, .kv_heads = 1, .ffn = 50, .vocab = 257};
  return job;
}

// Changes what the trainer is told of the sharding, to break it.
using Change = std::function<void(Model& model, const Mesh& mesh, Parallelism& parallelism)>;

inline Outcome train_with(Job job, ShardingPolicy policy, const Change& change = {}) {
  policy.settle_types(job.options);
  policy.validate();
  return train(job, [policy, change](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const std::shared_ptr<Sharding> sharding =
        shard(model, {mesh["dp_shard"], mesh["dp_replicate"]}, policy, mesh.world().device());
    Parallelism parallelism = sharding->parallelism(options.micro_batches);
    parallelism.technique = sharding;
    if (change) change(model, mesh, parallelism);
    return parallelism;
  });
}

inline Outcome expect_identical(const Job& job, const ShardingPolicy& policy) {
  SCOPED_TRACE(fmt::format("stage {}", policy.stage));
  Outcome outcome = train_with(job, policy);
  const RunRecord& record = outcome.record;
  EXPECT_EQ(record.numerics, Numerics::bit_identical);
  EXPECT_TRUE(record.check.passed);
  EXPECT_EQ(record.check.gradient_max_rel, 0);
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  EXPECT_TRUE(record.books_balanced);
  expect_balanced_books(record);
  return outcome;
}

}  // namespace ninefold
