// Plans are checked before anything is divided: who takes what, from whom, and whether it divides.
#include <gtest/gtest.h>

#include "05_tensor_parallel/resolve.h"
#include "common/nn/classifiers.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

constexpr LlamaConfig config{.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = 250};

std::vector<PlannedLayer> resolve_llama(const Plan& plan, int ranks = 2) {
  return resolve(*make_llama(config), plan, ranks, "tp").layers;
}

// Llama's plan with the entry of one pattern replaced, or removed.
Plan changed(const std::string& pattern, std::optional<Style> style, bool sequence_parallel = true) {
  Plan plan = llama_plan(config, sequence_parallel, true);
  std::erase_if(plan.entries, [&](const PlanEntry& entry) { return entry.pattern == pattern; });
  if (style) plan.entries.push_back({pattern, *style});
  return plan;
}

std::string refusal(const Plan& plan, int ranks = 2) {
  return sentence_of([&] { resolve_llama(plan, ranks); });
}

TEST(Plan, TheCoursesOwnFit) {
  for (const bool sequence_parallel : {false, true}) {
    for (const bool loss_parallel : {false, true}) {
      for (const int ranks : {1, 2, 4}) {
        EXPECT_NO_THROW(resolve_llama(llama_plan(config, sequence_parallel, loss_parallel), ranks));
      }
    }
  }
  EXPECT_NO_THROW(resolve(*make_mlp({.in = 6, .hidden = 8, .classes = 3}), mlp_plan(), 4, "tp"));
}

TEST(Plan, GivesEveryLayerItsStyle) {
  const auto layers = resolve_llama(llama_plan(config, true, true));
  const auto style_of = [&](const std::string& path) {
    const auto is_it = [&](const PlannedLayer& layer) { return layer.path == path; };
    return std::find_if(layers.begin(), layers.end(), is_it)->style;
  };
  EXPECT_EQ(style_of("layers.1.attention.wk"), column_parallel(Layout::replicate, Layout::columns, 2));
  EXPECT_EQ(style_of("layers.1.feed_forward.w2"), row_parallel(Layout::columns, Layout::rows));
  EXPECT_EQ(style_of("layers.0.ffn_norm"), sequence_parallel());
  EXPECT_EQ(style_of("layers.0"), std::nullopt);
}

TEST(Plan, TellsWhatAKeyThatMatchesNothingCouldHaveBeen) {
  EXPECT_EQ(refusal(changed("layers.*.attention.wx", column_parallel())),
            "the plan's key layers.*.attention.wx matches no layer; the children of layers.*.attention are "
            "layers.0.attention.wq [32, 32], layers.0.attention.wk [16, 32], layers.0.attention.wv [16, 32], "
            "layers.0.attention.wo [32, 32], layers.1.attention.wq [32, 32], layers.1.attention.wk [16, 32], "
            "layers.1.attention.wv [16, 32], layers.1.attention.wo [32, 32]");
}

TEST(Plan, AnotherOneGoesOnWithoutAKeyThatMatchesNothing) {
  Plan plan = mlp_plan();
  plan.strict = false;
  plan.entries.push_back({"fc3", column_parallel()});
  const auto [layers, warnings] = resolve(*make_mlp({.in = 6, .hidden = 8, .classes = 3}), plan, 2, "tp");
  EXPECT_EQ(warnings, std::vector<std::string>{"the plan's key fc3 matches no layer; the children of the model are "
                                               "flatten, fc1 [8, 6], relu1, fc2 [3, 8]; skipping this plan entry"});
  EXPECT_EQ(layers[1].style, column_parallel());
}

TEST(Plan, RefusesTwoStylesForOneLayer) {
  Plan plan = llama_plan(config, true, true);
  plan.entries.push_back({"layers.1.attention.*", row_parallel()});
  EXPECT_EQ(refusal(plan),
            "layers.1.attention.wq has two styles in the plan, column_parallel and row_parallel; leave "
            "one");
}

TEST(Plan, RefusesALayerThatCannotTakeItsStyle) {
  EXPECT_EQ(refusal(changed("tok_embeddings", column_parallel())),
            "tok_embeddings cannot be column_parallel: that is for linear layers");
  EXPECT_EQ(refusal(changed("norm", row_parallel())),
            "norm cannot be row_parallel: that is for linear layers and "
            "embeddings");
  EXPECT_EQ(refusal(changed("output", sequence_parallel())), "output cannot be sequence_parallel: that is for norms");
}

TEST(Plan, RefusesLayoutsThatAStyleDoesNotHave) {
  EXPECT_EQ(refusal(changed("output", column_parallel(Layout::columns, Layout::columns))),
            "output cannot be column_parallel from Shard(1) to Shard(1)");
  EXPECT_EQ(refusal(changed("layers.*.feed_forward.w2", row_parallel(Layout::rows, Layout::rows))),
            "layers.0.feed_forward.w2 cannot be row_parallel from Shard(0) to Shard(0)");
  EXPECT_EQ(refusal(changed("tok_embeddings", row_parallel(Layout::columns, Layout::rows))),
            "tok_embeddings cannot be row_parallel from Shard(1) to Shard(0)");
}

TEST(Plan, SaysWhatALayerHoldsAndCommunicates) {
  const std::vector<PlannedLayer> layers = resolve_llama(llama_plan(config, true, true), 4);
  const auto of = [&](const std::string& path) {
    return *std::find_if(layers.begin(), layers.end(), [&](const PlannedLayer& layer) { return layer.path == path; });
  };
  const PlannedLayer wk = of("layers.1.attention.wk"), w2 = of("layers.0.feed_forward.w2"), output = of("output");
  EXPECT_EQ(wk.prepared_by, "layers.1.attention");
  EXPECT_EQ(wk.input, Conjugate::none);
  EXPECT_EQ(wk.cut->count, 2);
  EXPECT_EQ(wk.cut->copies, 2);
  EXPECT_EQ(w2.cut->dim, 1);
  EXPECT_EQ(w2.cut->count, 4);
  EXPECT_EQ(w2.input, Conjugate::none);
  EXPECT_EQ(w2.output, Conjugate::scatter_rows);
  EXPECT_EQ(output.prepared_by, "");
  EXPECT_EQ(output.input, Conjugate::gather_rows);
  EXPECT_EQ(of("layers.0.attention").input, Conjugate::gather_rows);
}

TEST(Plan, RefusesWhatDoesNotDivide) {
  const Plan plan = llama_plan(config, true, true);
  EXPECT_EQ(refusal(plan, 3), "the 4 heads of layers.0.attention.wq must be divisible by tp (3), or divide it");
  LlamaConfig odd = config;
  odd.ffn = 50;
  EXPECT_EQ(sentence_of([&] { resolve(*make_llama(odd), llama_plan(odd, true, true), 4, "tp"); }),
            "the 50 output features of layers.0.feed_forward.w1 must be divisible by tp (4)");
}

TEST(Plan, RefusesNeighboursThatDoNotFit) {
  EXPECT_EQ(refusal(changed("layers.*.feed_forward.w2", std::nullopt)),
            "layers.0.feed_forward.w2 takes Replicate and has not a style of its own, but layers.0.feed_forward "
            "prepares its input for parallel layers");
  EXPECT_EQ(refusal(changed("layers.*.attention.wv", column_parallel(Layout::replicate, Layout::replicate))),
            "layers.0.attention.wv gives Replicate, but layers.0.attention.wo takes Shard(1)");
  EXPECT_EQ(refusal(changed("layers.*.attention.wo", row_parallel())),
            "layers.0.attention.wo gives Replicate, but tok_embeddings, to which it is added, gives Shard(0)");
  EXPECT_EQ(refusal(changed("norm", std::nullopt)), "tok_embeddings gives Shard(0), but norm takes Replicate");
  EXPECT_EQ(refusal(changed("layers.*.attention", prepare_input(Layout::replicate))),
            "tok_embeddings gives Shard(0), but layers.0.attention takes Replicate");
  EXPECT_EQ(refusal(changed("output", column_parallel(Layout::rows, Layout::replicate))),
            "the loss is parallel, but output gives Replicate, not Shard(1)");
  Plan mlp = mlp_plan();
  mlp.entries.erase(mlp.entries.begin());
  EXPECT_EQ(sentence_of([&] { resolve(*make_mlp({.in = 6, .hidden = 8, .classes = 3}), mlp, 2, "tp"); }),
            "fc1 gives Replicate, but fc2 takes Shard(1)");
}

}  // namespace
}  // namespace ninefold
