// Where a model is cut: which children stay together, and how well the cut is balanced.
#include "04_model_parallel/stages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "common/train/options.h"

namespace ninefold {
namespace {

std::vector<ChildOnPaper> paper_llama(int64_t layers, int64_t vocab = 256) {
  TrainOptions options;
  options.llama = {.dim = 32, .layers = layers, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = vocab};
  options.device = DeviceType::meta;
  options.length = 16;
  return on_paper(*make_task("llama", options), 1, {});
}

std::vector<ChildOnPaper> paper_mnist(const std::string& model, int64_t layers = 8) {
  TrainOptions options;
  options.data = NINEFOLD_DATA "/mnist";
  options.llama.layers = layers;
  return on_paper(*make_task(model, options), 4, {});
}

std::vector<size_t> begins(const std::vector<Stage>& stages) {
  std::vector<size_t> begins;
  for (const Stage& stage : stages) begins.push_back(stage.children.begin);
  return begins;
}

std::string refusal(const std::function<void()>& cut) {
  try {
    cut();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(OnPaper, KnowsWhatEveryChildHandsOn) {
  const auto llama = paper_llama(2);
  ASSERT_EQ(llama.size(), 5u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(llama[i].output, (Shape{16, 32})) << llama[i].name;
  EXPECT_EQ(llama[4].output, (Shape{16, 256}));
  EXPECT_EQ(llama[1].flops, llama[2].flops);
  EXPECT_GE(llama[4].flops, 6.0 * 16 * 32 * 256);  // the head counts
  const auto cnn = paper_mnist("mnist_cnn");
  EXPECT_EQ(cnn[0].output, (Shape{4, 32, 26, 26}));
  EXPECT_EQ(cnn.back().output, (Shape{4, 10}));
}

TEST(Layers, KeepTheEmbeddingFirstAndTheHeadLast) {
  const auto layers = layers_of(paper_llama(4));
  EXPECT_EQ(begins(layers), (std::vector<size_t>{0, 2, 3, 4}));
  EXPECT_EQ(layers.back().children.end, 7u);
}

// conv1 relu1 | conv2 relu2 pool dropout1 flatten | fc1 relu3 dropout2 | fc2, and flatten fc1 relu1 | fc2 relu2 | fc3
TEST(Layers, BeginWithParametersWhereThereAreNoBlocks) {
  EXPECT_EQ(begins(layers_of(paper_mnist("mnist_cnn"))), (std::vector<size_t>{0, 2, 7, 10}));
  EXPECT_EQ(begins(layers_of(paper_mnist("mlp", 3))), (std::vector<size_t>{0, 3, 5}));
}

// The smallest maximum of all cuts, by trying them.
double best_maximum(const std::vector<Stage>& layers, size_t begin, int stages) {
  double best = std::numeric_limits<double>::infinity(), first = 0;
  for (size_t end = begin + 1; end + static_cast<size_t>(stages) - 1 <= layers.size(); ++end) {
    first += layers[end - 1].flops;
    if (stages == 1 && end < layers.size()) continue;
    best = std::min(best, stages == 1 ? first : std::max(first, best_maximum(layers, end, stages - 1)));
  }
  return best;
}

TEST(CutEvenly, HasTheSmallestLargestStage) {
  for (const auto& model : {paper_llama(9), paper_llama(7, 2000), paper_mnist("mlp", 9), paper_mnist("mnist_cnn")}) {
    const auto layers = layers_of(model);
    for (int stages = 1; stages <= static_cast<int>(layers.size()); ++stages) {
      const auto cut = cut_evenly(layers, stages);
      ASSERT_EQ(static_cast<int>(cut.size()), stages);
      double largest = 0;
      size_t next = 0;
      for (const Stage& stage : cut) {
        EXPECT_EQ(stage.children.begin, next);
        EXPECT_GE(stage.layers, 1);
        next = stage.children.end;
        largest = std::max(largest, stage.flops);
      }
      EXPECT_EQ(next, model.size());
      EXPECT_DOUBLE_EQ(largest, best_maximum(layers, 0, stages));
    }
  }
}

// A head as dear as three layers: the last stage has fewer of them.
TEST(CutEvenly, CountsTheHead) {
  const auto cut = cut_evenly(layers_of(paper_llama(9, 700)), 3);
  EXPECT_LT(cut[2].layers, cut[0].layers);
}

TEST(CutAs, FollowsTheList) {
  const auto cut = cut_as(layers_of(paper_llama(8)), 3, "2,3,3");
  EXPECT_EQ(begins(cut), (std::vector<size_t>{0, 3, 6}));
  EXPECT_EQ(cut[2].children.end, 11u);
}

TEST(CutAs, RefusesWhatDoesNotFit) {
  const auto layers = layers_of(paper_llama(8));
  const auto sentence = [&](const std::string& list, int stages) {
    return refusal([&] { cut_as(layers, stages, list); });
  };
  EXPECT_EQ(sentence("2,3,2", 3), "--layers-per-stage 2,3,2 counts 7 layers, but the model has 8");
  EXPECT_EQ(sentence("2,3,4", 3), "--layers-per-stage 2,3,4 counts more than the 8 layers of the model");
  EXPECT_EQ(sentence("4,4", 3), "--layers-per-stage 4,4 is for 2 stages, but there are 3");
  for (const char* list : {"4,,4", "4,x", "0,8", "8,", "-1,9"}) {
    EXPECT_NE(sentence(list, 2).find("is no number of layers"), std::string::npos) << list;
  }
  EXPECT_EQ(refusal([&] { cut_evenly(layers, 9); }),
            "the model has 8 layers, too few for 9 stages; a stage needs at least one");
}

}  // namespace
}  // namespace ninefold
