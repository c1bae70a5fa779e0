// Layouts, units and predictions without a process beside this one.
#include <gtest/gtest.h>

#include "03_zero_fsdp/predict.h"
#include "03_zero_fsdp/units.h"
#include "common/nn/classifiers.h"
#include "common/nn/llama.h"
#include "common/optim/optimizer.h"

namespace ninefold {
namespace {

TEST(UnitLayout, EveryElementBelongsToOneRank) {
  for (const int ranks : {1, 2, 3, 4, 7, 8}) {
    const UnitLayout layout("unit", ranks, {100, 1, 64, 0, 1000, 63});
    EXPECT_EQ(layout.padded % (ranks * flat_alignment), 0);
    for (size_t i = 0; i < layout.sizes.size(); ++i) {
      EXPECT_EQ(layout.offsets[i] % flat_alignment, 0);
      int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto [in_parameter, in_shard, length] = layout.part(i, rank);
        if (length == 0) continue;
        EXPECT_EQ(in_parameter, next);
        EXPECT_EQ(rank * layout.shard() + in_shard, layout.offsets[i] + in_parameter);
        EXPECT_LE(in_shard + length, layout.shard());
        next += length;
      }
      EXPECT_EQ(next, layout.sizes[i]);
    }
  }
}

TEST(UnitLayout, CountsItsPadding) {
  EXPECT_EQ(UnitLayout("unit", 2, {64, 64}).padding(), 0);
  EXPECT_EQ(UnitLayout("unit", 2, {64, 1}).padding(), 63);
  EXPECT_EQ(UnitLayout("unit", 4, {10}).padding(), 4 * 64 - 10);
}

TEST(Units, SizeBasedGoesFromTheInnermostOutwards) {
  const std::vector<std::pair<std::string, int64_t>> layers = {
      {"a", 100}, {"a.b", 60}, {"a.b.c", 10}, {"a.d", 30}, {"ab", 40}};
  EXPECT_EQ(size_based_units(layers, 30), (std::vector<std::string>{"a.b", "a.d", "ab"}));
  EXPECT_EQ(size_based_units(layers, 10), (std::vector<std::string>{"a", "a.b", "a.b.c", "a.d", "ab"}));
  EXPECT_EQ(size_based_units(layers, 1000), std::vector<std::string>{});
}

TEST(Units, AsTheExampleWrapsTheMnistCnn) {
  const auto model = make_mnist_cnn();
  EXPECT_EQ(unit_paths(*model, "size:20000"), std::vector<std::string>{"fc1"});
}

TEST(Units, PatternsInForwardOrder) {
  const auto model = make_llama({.dim = 32, .layers = 2, .heads = 2, .kv_heads = 2, .ffn = 32, .vocab = 32});
  EXPECT_EQ(unit_paths(*model, "output,layers.*"), (std::vector<std::string>{"layers.0", "layers.1", "output"}));
  EXPECT_EQ(unit_paths(*model, "layers.*.attention,layers.*"),
            (std::vector<std::string>{"layers.0", "layers.0.attention", "layers.1", "layers.1.attention"}));
}

TEST(Units, WrongSizesAreRefused) {
  const auto model = make_mnist_cnn();
  for (const char* wrap : {"size:", "size:x", "size:0", "size:-3", "size:10k"}) {
    EXPECT_THROW(unit_paths(*model, wrap), UserError) << wrap;
  }
}

TEST(Units, WhatLiesBelowALayer) {
  EXPECT_TRUE(is_below("layers.1.attention", "layers.1"));
  EXPECT_TRUE(is_below("layers.1", "layers.1"));
  EXPECT_FALSE(is_below("layers.10", "layers.1"));
}

// Three units in a row and a root around them.
struct Example {
  std::vector<UnitLayout> units;
  Walk walk{0};
  ShardingPolicy policy;

  explicit Example(int ranks) {
    for (const char* name : {"root", "a", "b", "c"}) units.emplace_back(name, ranks, std::vector<int64_t>{640});
    for (const size_t unit : {0, 1, 2, 3, 0}) walk.leave(walk.enter(unit));
  }
  int64_t gathered(int64_t micro_batches = 1) const {
    MemoryByKind bytes{};
    predict_memory(bytes, units, walk, policy, micro_batches);
    return bytes[static_cast<size_t>(MemoryKind::gathered)];
  }
  // Of all units in one step.
  UnitCalls calls(int64_t micro_batches = 1) const {
    UnitCalls sum;
    for (const UnitCalls& unit : predict_calls(units, walk, policy, micro_batches)) {
      sum.all_gathers += unit.all_gathers;
      sum.reduce_scatters += unit.reduce_scatters;
    }
    return sum;
  }
};

TEST(Prediction, GatheredUnitsFollowPrefetchAndPolicy) {
  Example example(1);
  const int64_t unit = 640 * 4;
  // In the backward of a unit: the root's values and gradients, the unit's own, the gradients of the unit before, which
  // are on their way, and what is gathered ahead.
  example.policy.prefetch = 0;
  EXPECT_EQ(example.gathered(), (2 + 2 + 1) * unit);
  example.policy.prefetch = 1;
  EXPECT_EQ(example.gathered(), (2 + 2 + 1 + 1) * unit);
  example.policy.prefetch = 2;
  EXPECT_EQ(example.gathered(),
            (2 + 2 + 1 + 1) * unit);  // only in the backward of c there are two before, and none after
  example.policy.prefetch = 1;
  example.policy.reshard = Reshard::never;
  EXPECT_EQ(example.gathered(), (2 + 2 + 1 + 1) * unit);  // in the backward of b: values of a and b
}

// Layers of the root, 0, each around one of unit 1 and one of unit 2, then of 3 and 4. The backward enters a layer of
// the root before those in it.
TEST(Walk, KnowsWhatComesNextBothWays) {
  Walk walk(0);
  for (const size_t first : {1, 3}) {
    const size_t outer = walk.enter(0);
    for (const size_t unit : {first, first + 1}) walk.leave(walk.enter(unit));
    walk.leave(outer);
  }
  using Units = std::vector<size_t>;
  EXPECT_EQ(walk.after(0, 2), (Units{1, 2}));
  EXPECT_EQ(walk.after(2, 2), (Units{3, 4}));
  EXPECT_EQ(walk.before(3, 2), (Units{4, 3}));
  EXPECT_EQ(walk.before(5, 3), (Units{3, 2, 1}));
  EXPECT_EQ(walk.before(1, 5), Units{});
}

TEST(Walk, GathersTheRootAheadWhereItComesLater) {
  Walk walk(0);
  for (const size_t unit : {1, 2, 0, 3, 0}) walk.leave(walk.enter(unit));
  using Units = std::vector<size_t>;
  EXPECT_EQ(walk.after(0, 3), (Units{2, 0, 3}));
  EXPECT_EQ(walk.after(1, 1), Units{0});
  EXPECT_EQ(walk.after(2, 2), Units{3});
  EXPECT_EQ(walk.before(3, 3), (Units{2, 1}));
}

TEST(Prediction, GathersTwiceUnlessNothingIsFreed) {
  Example example(2);
  example.policy.reshard = Reshard::always;
  EXPECT_EQ(example.calls().all_gathers, 1 + 3 + 3);
  example.policy.reshard = Reshard::standard;
  EXPECT_EQ(example.calls().all_gathers, 1 + 3 + 2);
  example.policy.reshard = Reshard::never;
  EXPECT_EQ(example.calls().all_gathers, 1 + 3);
  EXPECT_EQ(example.calls(4).all_gathers, 4 * (1 + 3));
  EXPECT_EQ(example.calls(4).reduce_scatters, 4);
  example.policy.reduce_each_micro_batch = true;
  EXPECT_EQ(example.calls(4).reduce_scatters, 4 * 4);
}

// Parameters, gradients and optimizer states of rank 0.
StateBytes predicted_states(const LlamaConfig& config, int ranks, int64_t stage, const ShardingPolicy::Types& types) {
  const auto model = make_llama(config);
  const ShardingPlan plan = plan_sharding(*model, "layers.*");
  const std::vector<UnitLayout> layouts = layouts_of(plan, ranks);
  for (size_t unit = 0; unit < layouts.size(); ++unit) {
    for (size_t i = 0; i < layouts[unit].sizes.size(); ++i) {
      const auto part = layouts[unit].part(i, 0);
      plan.units[unit].parameters[i]->placement.flat = {part.in_parameter, part.length, {"dp_shard"}};
    }
  }
  ShardingPolicy policy;
  policy.stage = stage;
  policy.types = types;
  MemoryByKind bytes{};
  predict_memory(bytes, layouts, plan.walk, policy, 1);
  const auto of = [&](MemoryKind kind) { return static_cast<double>(bytes[static_cast<size_t>(kind)]); };
  return {of(MemoryKind::parameters), of(MemoryKind::gradients),
          static_cast<double>(optimizer_bytes({}, parameters_of(*model), types.stored))};
}

// 16 bytes a parameter in f32, 18 in bf16 with f32 gradients, 16 with bf16 ones; each parameter divides by 8 x 64.
TEST(Prediction, IsTheFormulaInElementSizesWhereNothingIsPadded) {
  const LlamaConfig config{.dim = 512, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 1024, .vocab = 512};
  const auto parameters = static_cast<double>(llama_parameters(config));
  const std::pair<ShardingPolicy::Types, ElementBytes> precisions[] = {
      {{Dtype::f32, Dtype::f32, Dtype::f32, Dtype::f32}, {4, 4, 8}},
      {{Dtype::bf16, Dtype::bf16, Dtype::f32, Dtype::f32}, {2, 4, 12}},
      {{Dtype::bf16, Dtype::bf16, Dtype::bf16, Dtype::f32}, {2, 2, 12}}};
  for (const auto& [types, sizes] : precisions) {
    for (const int ranks : {1, 2, 4, 8}) {
      for (const int64_t stage : {1, 2, 3}) {
        const StateBytes found = predicted_states(config, ranks, stage, types);
        const StateBytes formula = zero_bytes(parameters, ranks, stage, sizes);
        EXPECT_EQ(found.parameters, formula.parameters) << stage;
        EXPECT_EQ(found.gradients, formula.gradients) << stage;
        EXPECT_EQ(found.optimizer, formula.optimizer) << stage;
      }
    }
  }
}

// ZeRO's own account (Rajbhandari et al. 2020, figure 1): 2 bytes a parameter, 2 a gradient, 12 for the optimizer.
TEST(Prediction, GivesTheBytesOfTheZeroPaper) {
  const double parameters = 7.5e9;
  for (const auto& [stage, gigabytes] : {std::pair(0, 120.0), {1, 31.4}, {2, 16.6}, {3, 1.9}}) {
    EXPECT_NEAR(zero_bytes(parameters, 64, stage, {2, 2, 12}).total() * 1e-9, gigabytes, 0.05) << stage;
  }
}

}  // namespace
}  // namespace ninefold
