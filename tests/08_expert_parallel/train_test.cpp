// Mixtures of experts trained on one rank and on several that each hold the whole model.
#include <gtest/gtest.h>

#include "02_ddp/replicate.h"
#include "common/train/routing.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

Job small_moe(const MoeConfig& moe) {
  Job job = small_llama("ordered");
  job.options.llama.ffn = 24;
  job.options.llama.moe = moe;
  return job;
}

Parallelism replicated(Model& model, const Mesh& mesh, const TrainOptions& options) {
  const auto technique = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{}, mesh.world().device(),
                                                      options.grad_dtype);
  Parallelism parallelism = technique->parallelism();
  parallelism.technique = technique;
  return parallelism;
}

std::vector<MoeConfig> configs() {
  return {{.experts = 4, .top_k = 1},
          {.experts = 4, .top_k = 2, .capacity_factor = 0.75, .drop_policy = DropPolicy::probs},
          {.experts = 8, .top_k = 4, .router = RouterKind::topk_softmax, .z_loss_coefficient = 0.01},
          {.experts = 8, .router = RouterKind::sigmoid, .balance = Balance::bias, .shared_experts = 1},
          {.experts = 4, .balance_scope = BalanceScope::batch}};
}

TEST(ReplicatedMixture, IsTheSerialModelToTheBit) {
  for (const MoeConfig& moe : configs()) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      Job job = small_moe(moe);
      job.options.dtype = dtype;
      job.options.micro_batches = 2;
      const Outcome outcome = train(job, replicated);
      EXPECT_EQ(outcome.exit_code, 0);
      EXPECT_EQ(outcome.record.check.gradient_max_rel, 0);
      EXPECT_EQ(outcome.record.check.routed_otherwise, 0);
      expect_balanced_books(outcome.record);
      const RoutingRecord& routing = *outcome.record.steps.back().routing;
      ASSERT_EQ(routing.layers.size(), 2u);
      for (const RoutingRecord::Layer& layer : routing.layers) {
        EXPECT_EQ(std::accumulate(layer.load.begin(), layer.load.end(), int64_t{0}), 12 * 16 * moe.top_k);
      }
      EXPECT_EQ(routing.dropped_share() > 0, moe.capacity_factor.has_value());
    }
  }
}

TEST(ReplicatedMixture, TheCheckFindsWrongOperations) {
  expect_the_check_to_find(moe_faults, small_moe({.experts = 4, .balance = Balance::none}), replicated);
}

}  // namespace
}  // namespace ninefold
