// Activation checkpointing under data parallelism and inside sharded layers: each stage passes its check, and
// communicates what it did without.
#include <gtest/gtest.h>

#include "01_collectives/collectives.h"
#include "02_ddp/replicate.h"
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/sharding.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

// A whole run over the mesh dp_shard(all ranks).
RunRecord run(TrainOptions options, const ShardingPolicy& policy, const std::string& checkpointed, int& exit_code) {
  const Options command_line("test", "");
  World world(options.world(), collectives::named(options.collectives));
  const Mesh mesh(world, {{"dp_replicate", 1}, {"dp_shard", 0}});
  options.resolve(mesh.size("dp_shard"));
  const auto task = make_task("llama", options);
  const auto model = task->make_model();
  checkpoint_activations(*model, checkpointed, options.recomputation);
  const auto sharding = shard(*model, {mesh["dp_shard"], mesh["dp_replicate"]}, policy, world.device());
  materialize(*model, world.device(), options.precision(), options.seed);
  Trainer trainer("test", options, command_line, mesh, mesh["dp_shard"], *task, *model,
                  sharding->parallelism(options.micro_batches));
  exit_code = trainer.run();
  return trainer.record();
}

TrainOptions options_of(const Recomputation& recomputation, int64_t micro_batch) {
  TrainOptions options = small_llama("ordered").options;
  options.llama.layers = 3;
  options.steps = 2;
  options.micro_batch = micro_batch;
  options.recomputation = recomputation;
  return options;
}

TEST(CheckpointUnderSharding, KeepsTheBitsAndTheTraffic) {
  const Recomputation modes[] = {
      {.every = 1, .save = {}}, {.every = 2, .save = {}}, {.every = 1, .save = {SavedOperation::matmul}}};
  for (const int64_t stage : {1, 2, 3}) {
    for (const int64_t micro_batch : {0, 1}) {
      SCOPED_TRACE(fmt::format("stage {}, micro-batch {}", stage, micro_batch));
      ShardingPolicy policy;
      policy.stage = stage;
      int exit_code = 0;
      const RunRecord plain = run(options_of({}, micro_batch), policy, "layers.*", exit_code);
      EXPECT_EQ(exit_code, 0);
      for (const Recomputation& mode : modes) {
        const RunRecord again = run(options_of(mode, micro_batch), policy, "layers.*", exit_code);
        EXPECT_EQ(exit_code, 0);
        EXPECT_EQ(again.numerics, Numerics::bit_identical);
        EXPECT_EQ(again.steps.back().loss, plain.steps.back().loss);
        EXPECT_EQ(again.steps.back().gradient_norm, plain.steps.back().gradient_norm);
        expect_balanced_books(again);
        EXPECT_EQ(again.executed_flops_per_step, again.predicted_flops_per_step);
        EXPECT_GT(again.executed_flops_per_step, plain.executed_flops_per_step);
        ASSERT_EQ(again.traffic.size(), plain.traffic.size());
        for (const auto& [dimension, operations] : plain.traffic) {
          for (const auto& [operation, entry] : operations) {
            EXPECT_EQ(again.traffic.at(dimension).at(operation).bytes, entry.bytes);
            EXPECT_EQ(again.traffic.at(dimension).at(operation).calls, entry.calls);
          }
        }
      }
    }
  }
}

TEST(CheckpointUnderDataParallelism, KeepsTheBits) {
  Job job = small_llama("ordered");
  job.options = options_of({.every = 1, .save = {SavedOperation::attention}}, 1);
  const Outcome outcome = train(job, [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
    checkpoint_activations(model, "layers.*", options.recomputation);
    const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{},
                                                         mesh.world().device(), options.grad_dtype);
    return Parallelism{
        .reduce_gradients = [=] { replicated->reduce_gradients(); },
        .predict_traffic = [=](TrafficLedger& ledger, int64_t steps) { replicated->predict_traffic(ledger, steps); },
        .numerics = replicated->numerics()};
  });
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.record.numerics, Numerics::bit_identical);
  expect_balanced_books(outcome.record);
}

TEST(CheckpointUnderSharding, RefusesUnitsInsideOfWhatRunsAgain) {
  ShardingPolicy policy;
  policy.wrap = "layers.*.attention";
  int exit_code = 0;
  EXPECT_THROW(run(options_of({.every = 1, .save = {}}, 0), policy, "layers.*", exit_code), UserError);
  policy.wrap = "layers.*";
  EXPECT_NO_THROW(run(options_of({.every = 1, .save = {}}, 0), policy, "layers.*.attention", exit_code));
}

}  // namespace
}  // namespace ninefold
