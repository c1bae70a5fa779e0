// Placements, names and patterns: who holds what, and how techniques find it.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "common/nn/classifiers.h"
#include "common/nn/linear.h"
#include "common/nn/llama.h"
#include "common/nn/replace.h"
#include "tests/support/numbers.h"

namespace ninefold {
namespace {

TEST(Placement, WithoutSplitsIsTheWholeTensor) {
  EXPECT_EQ(Placement{}.pieces({3, 4}), (std::vector<Piece>{{0, 0, 12}}));
  EXPECT_EQ(Placement{}.local_shape({3, 4}), (Shape{3, 4}));
}

TEST(Placement, ColumnsAreOneRunARow) {
  const Placement placement{.shards = {{"tp", 1, 1, 2}}, .flat = {}, .partial = {}};
  EXPECT_EQ(placement.local_shape({3, 4}), (Shape{3, 2}));
  EXPECT_EQ(placement.pieces({3, 4}), (std::vector<Piece>{{2, 0, 2}, {6, 2, 2}, {10, 4, 2}}));
}

TEST(Placement, FlatRangeCutsWhatTheShardsLeft) {
  const Placement placement{.shards = {{"tp", 1, 1, 2}}, .flat = Placement::Flat{1, 3}, .partial = {}};
  EXPECT_EQ(placement.local_shape({3, 4}), (Shape{3}));
  EXPECT_EQ(placement.pieces({3, 4}), (std::vector<Piece>{{3, 0, 1}, {6, 1, 2}}));
}

// Stages of a pipeline: some ranks hold all of it, the others nothing.
TEST(Placement, OfAStageIsWholeOrNothing) {
  const auto on = [](int rank) {
    Placement placement;
    placement.replicated_over = {"pp", {1, 3}, rank};
    return placement;
  };
  EXPECT_EQ(on(1).local_shape({3, 4}), (Shape{3, 4}));
  EXPECT_EQ(on(3).pieces({3, 4}), (std::vector<Piece>{{0, 0, 12}}));
  EXPECT_EQ(on(0).local_shape({3, 4}), (Shape{0}));
  EXPECT_TRUE(on(2).pieces({3, 4}).empty());
  EXPECT_TRUE(on(0).is_divided());
  EXPECT_FALSE(on(0).is_held());
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(on(rank).is_first_copy("pp", rank), rank == 1);
    EXPECT_EQ(on(rank).is_first_copy("dp_replicate", rank), rank == 0);
  }
  Placement sharded = on(3);
  sharded.flat = Placement::Flat{4, 8, {"dp_shard"}};
  EXPECT_EQ(sharded.pieces({3, 4}), (std::vector<Piece>{{4, 0, 8}}));
  EXPECT_TRUE(sharded.is_first_copy("dp_shard", 5));
}

TEST(Llama, TiedEmbeddingsAreOneParameterWithTwoUsers) {
  LlamaConfig config{.dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 24, .vocab = 11};
  config.tied_embeddings = true;
  const auto model = make_llama(config);
  EXPECT_EQ(parameter_count(*model), llama_parameters(config));
  const auto parameters = parameters_of(*model), used = parameters_used_by(*model);
  EXPECT_EQ(parameters.front()->users, 2);
  EXPECT_EQ(std::count(parameters.begin(), parameters.end(), parameters.front()), 1);
  EXPECT_EQ(std::count(used.begin(), used.end(), parameters.front()), 2);
}

// All ranks of tp x ep x flat together hold each element exactly once, whatever the shape.
TEST(Placement, PiecesOfAllRanksCoverTheTensorOnce) {
  for (const Shape& shape : {Shape{8, 12}, Shape{4, 6, 10}, Shape{24}, Shape{2, 2, 2, 6}}) {
    for (int first = 0; first < static_cast<int>(shape.size()); ++first) {
      const int second = static_cast<int>(shape.size()) - 1;
      std::vector<int> seen(static_cast<size_t>(elements(shape)), 0);
      for (int64_t tp = 0; tp < 2; ++tp) {
        for (int64_t ep = 0; ep < 3 && first != second; ++ep) {
          Placement placement{.shards = {{"tp", first, tp, 2}}, .flat = {}, .partial = {}};
          if (shape[second] % 3 != 0 && shape[second] % 2 == 0) continue;
          if (shape[second] % 3 == 0) placement.shards.push_back({"ep", second, ep, 3});
          const int64_t local = elements(placement.sharded_shape(shape));
          for (int64_t begin = 0; begin < local; begin += 5) {
            placement.flat = Placement::Flat{begin, std::min<int64_t>(5, local - begin)};
            int64_t next = 0;
            for (const Piece& piece : placement.pieces(shape)) {
              EXPECT_EQ(piece.local_offset, next);
              next += piece.length;
              for (int64_t i = 0; i < piece.length; ++i) ++seen[static_cast<size_t>(piece.global_offset + i)];
            }
            EXPECT_EQ(next, placement.flat->length);
          }
        }
      }
      if (first != second && shape[second] % 3 == 0) {
        EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; })) << to_string(shape);
      }
    }
  }
}

// Parts of equal size that are more than the whole end in padding, which belongs to no piece.
TEST(Placement, PadsWhatDoesNotDivide) {
  for (const Shape& shape : {Shape{6, 4}, Shape{4, 6}, Shape{2, 6, 3}, Shape{3, 3}, Shape{2}}) {
    for (int dim = 0; dim < static_cast<int>(shape.size()); ++dim) {
      std::vector<int> seen(static_cast<size_t>(elements(shape)), 0);
      for (int64_t tp = 0; tp < 4; ++tp) {
        const Placement placement{.shards = {{"tp", dim, tp, 4}}, .flat = {}, .partial = {}};
        Shape padded = shape;
        padded[static_cast<size_t>(dim)] = (shape[static_cast<size_t>(dim)] + 3) / 4;
        EXPECT_EQ(placement.local_shape(shape), padded);
        for (const Piece& piece : placement.pieces(shape)) {
          EXPECT_LE(piece.local_offset + piece.length, elements(padded));
          for (int64_t i = 0; i < piece.length; ++i) ++seen[static_cast<size_t>(piece.global_offset + i)];
        }
      }
      EXPECT_EQ(seen, std::vector<int>(seen.size(), 1)) << to_string(shape) << " along " << dim;
    }
  }
  const Placement last{.shards = {{"tp", 1, 3, 4}}, .flat = {}, .partial = {}};
  EXPECT_EQ(last.local_shape({2, 7}), (Shape{2, 2}));
  EXPECT_EQ(last.pieces({2, 7}), (std::vector<Piece>{{6, 0, 1}, {13, 2, 1}}));
}

TEST(Parameter, PaddingStartsAsZeros) {
  const DeviceHandle device = make_cpu_device();
  Parameter part({3, 2}, {.mean = 1});
  part.placement.shards = {{"tp", 0, 1, 2}};
  const Tensor local = Tensor::empty(device, part.local_shape(), Dtype::f32);
  ops::fill_(local, 7);
  part.initialise(local, 1);
  EXPECT_EQ(local.to_vector<float>(), (std::vector<float>{1, 1, 0, 0}));
}

TEST(Parameter, EveryLayoutStartsFromTheSameValues) {
  const DeviceHandle device = make_cpu_device();
  for (const auto kind : {ops::Distribution::Kind::normal, ops::Distribution::Kind::uniform}) {
    Parameter whole({6, 10}, {.kind = kind, .mean = 0.5, .width = 2});
    whole.name = "layers.0.w";
    const Tensor global = Tensor::empty(device, whole.shape, Dtype::f32);
    whole.initialise(global, 3);
    Parameter part = whole;
    part.placement = {.shards = {{"tp", 1, 1, 2}}, .flat = Placement::Flat{7, 17}, .partial = {}};
    const Tensor local = Tensor::empty(device, part.local_shape(), Dtype::f32);
    part.initialise(local, 3);
    for (const Piece& piece : part.placement.pieces(part.shape)) {
      EXPECT_TRUE(same_bits(local.slice(piece.local_offset, {piece.length}),
                            global.reshape({60}).slice(piece.global_offset, {piece.length})));
    }
    const Tensor other = Tensor::empty(device, whole.shape, Dtype::f32);
    whole.initialise(other, 4);
    EXPECT_FALSE(same_bits(global, other)) << "another seed gives other values";
  }
}

TEST(Names, FollowTheReferenceCode) {
  const auto model = make_llama({.dim = 8, .layers = 1, .heads = 2, .kv_heads = 1, .ffn = 12, .vocab = 5});
  std::vector<std::string> names;
  for (const Parameter* parameter : parameters_of(*model)) names.push_back(parameter->name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "tok_embeddings.weight", "layers.0.attention_norm.weight", "layers.0.attention.wq.weight",
                       "layers.0.attention.wk.weight", "layers.0.attention.wv.weight", "layers.0.attention.wo.weight",
                       "layers.0.ffn_norm.weight", "layers.0.feed_forward.w1.weight", "layers.0.feed_forward.w3.weight",
                       "layers.0.feed_forward.w2.weight", "norm.weight", "output.weight"}));
  const auto cnn = make_mnist_cnn();
  EXPECT_EQ(parameters_of(*cnn)[0]->name, "conv1.weight");
  EXPECT_EQ(parameter_count(*cnn), mnist_cnn_parameters());
}

TEST(Patterns, AStarStandsForOneNamesText) {
  const auto model = make_llama({.dim = 8, .layers = 3, .heads = 2, .kv_heads = 1, .ffn = 12, .vocab = 5});
  const auto count = [&](const std::string& pattern) {
    return for_each_match(*model, pattern, [](const std::string&, std::unique_ptr<Layer>&) {});
  };
  EXPECT_EQ(count("layers.*"), 3);
  EXPECT_EQ(count("layers.*.attention.wq"), 3);
  EXPECT_EQ(count("layers.1.*"), 2);
  EXPECT_EQ(count("*.attention"), 0);
  EXPECT_EQ(count("layers.*.attention.w9"), 0);
  EXPECT_EQ(
      for_each_core(*model, "layers.*.attention.core", [](const std::string&, std::unique_ptr<AttentionCore>&) {}), 3);
  const auto paths = slot_paths(*model);
  EXPECT_NE(std::find(paths.begin(), paths.end(), "layers.2.feed_forward.w3"), paths.end());
}

// Stands around a layer and is transparent in names.
class Wrapper : public Layer {
 public:
  explicit Wrapper(std::unique_ptr<Layer> inner) : inner_(std::move(inner)) {}
  Tensor forward(const Tensor& x, Saved& saved) override { return inner_->forward(x, saved); }
  Tensor backward(const Tensor& dy, Saved& saved) override { return inner_->backward(dy, saved); }
  void visit(Visitor& visitor) override { visitor.slot("", inner_); }

 private:
  std::unique_ptr<Layer> inner_;
};

TEST(Patterns, ARefilledSlotKeepsItsNamesAndIsNotEntered) {
  const auto model = make_llama({.dim = 8, .layers = 2, .heads = 2, .kv_heads = 1, .ffn = 12, .vocab = 5});
  const auto names_of = [&] {
    std::vector<std::string> names;
    for_each_parameter(*model, [&](const std::string& path, Parameter&) { names.push_back(path); });
    return names;
  };
  const auto before = names_of();
  int wrapped = 0;
  for_each_match(*model, "layers.*", [&](const std::string&, std::unique_ptr<Layer>& slot) {
    slot = std::make_unique<Wrapper>(std::move(slot));
    ++wrapped;
  });
  EXPECT_EQ(wrapped, 2);
  EXPECT_EQ(names_of(), before);
}

TEST(Llama, FormulasAgreeWithTheModel) {
  const LlamaConfig config{.dim = 32, .layers = 3, .heads = 4, .kv_heads = 2, .ffn = 40, .vocab = 50};
  EXPECT_EQ(parameter_count(*make_llama(config)), llama_parameters(config));
}

TEST(Llama, RefusesSizesThatDoNotFit) {
  const auto sentence = [](const LlamaConfig& config) -> std::string {
    try {
      (void)make_llama(config);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(sentence({.heads = 6, .kv_heads = 4}), "heads (6) must be divisible by kv-heads (4)");
  EXPECT_EQ(sentence({.dim = 30, .heads = 4, .kv_heads = 4}), "dim (30) must be divisible by heads (4)");
  EXPECT_NE(sentence({.dim = 12, .heads = 4, .kv_heads = 4}).find("must be even"), std::string::npos);
}

// 70 billion parameters, sharded flat over 512 ranks: shapes and bytes, but no memory.
TEST(Meta, SeventyBillionParametersOnPaper) {
  const DeviceHandle device = make_meta_device();
  const LlamaConfig config{
      .dim = 8192, .layers = 80, .heads = 64, .kv_heads = 8, .ffn = 28672, .vocab = 128256, .rope_theta = 500000};
  const auto model = make_llama(config);
  int64_t expected = 0;
  for (Parameter* parameter : parameters_of(*model)) {
    const int64_t shard = (parameter->size() + 511) / 512;
    const int64_t begin = std::min(17 * shard, parameter->size());
    parameter->placement.flat = Placement::Flat{begin, std::min(shard, parameter->size() - begin)};
    expected += 2 * parameter->placement.flat->length;
  }
  materialize(*model, device, {.stored = Dtype::bf16, .compute = Dtype::bf16}, 1);
  EXPECT_EQ(llama_parameters(config), 70553706496);
  EXPECT_EQ(device->ledger().now(MemoryKind::parameters), expected);
}

}  // namespace
}  // namespace ninefold
