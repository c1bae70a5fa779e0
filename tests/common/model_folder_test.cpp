// Folders as transformers writes them, against its own logits; and text from them.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/nn/replace.h"
#include "common/train/generate.h"
#include "common/train/model_tensors.h"
#include "tests/support/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

const std::string test_data = NINEFOLD_TEST_DATA;

struct HuggingFace {
  // Without a type it computes in the folder's own. `weights_of`: another folder that has them.
  explicit HuggingFace(const std::string& name, std::optional<Dtype> compute = std::nullopt,
                       const std::string& weights_of = "")
      : path(test_data + "/" + name),
        folder(weights_of.empty() ? path : test_data + "/" + weights_of),
        config(llama_config_in(read_json(path + "/config.json"), path)),
        expected(read_safetensors(path + "/expected.safetensors")),
        model(make_llama(config)) {
    const Dtype dtype = compute.value_or(folder.tensors().begin()->second.dtype.value());
    materialize(*model, device, {dtype, dtype, dtype, dtype}, 1);
    const std::vector<CarriedTensor> tensors = tensors_of_model(*model, ModelFormat());
    load_tensors(folder.tensors(), path, tensors, /*converts=*/true);
    EXPECT_EQ(warning_of_extra_tensors(folder.tensors(), path, tensors), "");
  }

  // The distance to transformers' logits, which are of f64, and to its loss. Logits: relative to their norm.
  std::pair<double, double> distances() const {
    const int64_t sequences = expected["tokens"].shape[0], length = expected["tokens"].shape[1];
    std::vector<int32_t> positions(static_cast<size_t>(length));
    std::iota(positions.begin(), positions.end(), 0);
    Step step;
    step.rows_per_sample = length;
    step.positions = Tensor::from(device, {length}, positions);
    step.targets = expected["targets"].on(device).reshape({sequences * length});
    const auto [scores, loss_sum] =
        evaluate(*model, expected["tokens"].on(device).reshape({sequences * length}), std::move(step));
    const auto logits = ops::cast(scores, Dtype::f32).to_vector<float>();
    double squares = 0, error_squares = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double reference = expected["logits"].floats[i];
      squares += reference * reference;
      error_squares += std::pow(logits[i] - reference, 2);
    }
    return {std::sqrt(error_squares / squares),
            std::abs(loss_sum / static_cast<double>(sequences * length) - expected["loss"].floats[0])};
  }

  // The first tokens, and what the model makes of them.
  std::vector<int32_t> continued(size_t prompt, size_t total) const {
    Generator generator(*model, config, device);
    RandomStream random(1);
    const std::vector<int32_t>& greedy = expected["greedy"].ints;
    std::vector<int32_t> tokens(greedy.begin(), greedy.begin() + static_cast<std::ptrdiff_t>(prompt)), next = tokens;
    while (tokens.size() < total) {
      next = {choose_token(generator.feed(next), {.temperature = 0}, random)};
      tokens.push_back(next[0]);
    }
    return tokens;
  }

  DeviceHandle device = make_cpu_device();
  std::string path;
  ModelFolder folder;
  LlamaConfig config;
  GoldenFile expected;
  std::unique_ptr<Model> model;
};

TEST(HuggingFace, LogitsAndGreedyContinuationAreThoseOfTransformers) {
  const HuggingFace llama("hf_llama");
  const auto [logits, loss] = llama.distances();
  EXPECT_LE(logits, 1e-5);
  EXPECT_LE(loss, 1e-5);
  EXPECT_EQ(llama.continued(8, 24), llama.expected["greedy"].ints);
}

TEST(HuggingFace, SeveralFilesInBf16WithTiedEmbeddings) {
  const HuggingFace llama("hf_llama_bf16_sharded_tied");
  EXPECT_TRUE(llama.config.tied_embeddings);
  EXPECT_EQ(llama.config.rope_theta, 500000);
  const auto [logits, loss] = llama.distances();
  EXPECT_LE(logits, 2e-2);
  EXPECT_LE(loss, 2e-2);
  const auto [logits_of_f32, loss_of_f32] = HuggingFace("hf_llama_bf16_sharded_tied", Dtype::f32).distances();
  EXPECT_LE(logits_of_f32, 1e-5);
  EXPECT_LE(loss_of_f32, 1e-5);
  EXPECT_EQ(llama.continued(8, 24), llama.expected["greedy"].ints);
}

// The weights of hf_llama, with positions scaled as Llama 3.1's are.
TEST(HuggingFace, ScaledPositions) {
  const HuggingFace llama("hf_llama_scaled_rope", std::nullopt, "hf_llama");
  const auto [logits, loss] = llama.distances();
  EXPECT_LE(logits, 1e-5);
  EXPECT_LE(loss, 1e-5);
  EXPECT_EQ(llama.continued(8, 24), llama.expected["greedy"].ints);
}

TEST(HuggingFace, ConvertsTypesAndWarnsOfWhatIsExtra) {
  const DeviceHandle device = make_cpu_device();
  const std::string content = safetensors_header({{"a", Dtype::bf16, {4}}, {"b", Dtype::f32, {1}}}) +
                              std::string("\x80\x3f\x00\x40\x40\x40\x80\x40\0\0\0\0", 12);  // 1, 2, 3, 4
  const StoredTensors stored = parse_safetensors(content, "file");
  Placement placement;
  placement.flat = {1, 2, {"dp_shard"}};
  const Tensor f32 = Tensor::empty(device, {2}, Dtype::f32), bf16 = Tensor::empty(device, {2}, Dtype::bf16);
  load_tensors(stored.tensors, "file", {{"a", f32, placement, {4}, {4}}}, true);
  EXPECT_EQ(f32.to_vector<float>(), (std::vector<float>{2, 3}));
  load_tensors(stored.tensors, "file", {{"a", bf16, placement, {4}, {4}}}, false);
  EXPECT_EQ(ops::cast(bf16, Dtype::f32).to_vector<float>(), (std::vector<float>{2, 3}));
  EXPECT_EQ(warning_of_extra_tensors(stored.tensors, "file", {{"a", f32, placement, {4}, {4}}}),
            "warning: file has 1 tensor(s) that this model does not have, and leaves out: b\n");
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"a", f32, placement, {4}, {4}}}, false);
            }),
            "file: a is of type BF16, but this model needs F32");
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"c", f32, placement, {4}, {4}}}, true);
            }),
            "file has no tensor c, which this model needs");
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"a", f32, placement, {5}, {5}}}, true);
            }),
            "file: a has the shape [4], but this model needs [5]");
}

TEST(HuggingFace, AFolderMustBeWhole) {
  const TemporaryFolder folder;
  std::filesystem::copy(test_data + "/hf_llama_bf16_sharded_tied", folder.path("model"));
  const auto sentence = [&] { return sentence_of([&] { ModelFolder(folder.path("model")); }); };
  const std::string second = folder.path("model/model-00002-of-00002.safetensors");
  std::filesystem::rename(second, folder.path("elsewhere"));
  EXPECT_EQ(sentence(), second + " does not exist; check the path");
  std::filesystem::copy(folder.path("model/model-00001-of-00002.safetensors"), second);
  EXPECT_NE(sentence().find("has no tensor model.layers.1.input_layernorm.weight, which the index says is there"),
            std::string::npos);
  std::filesystem::remove(folder.path("model/model.safetensors.index.json"));
  EXPECT_EQ(sentence(), folder.path("model") + " has neither model.safetensors nor model.safetensors.index.json");
  folder.write("model/config.json", "{");
  EXPECT_NE(sentence().find("config.json is no JSON"), std::string::npos);
  EXPECT_EQ(sentence_of([] { ModelFolder("nowhere"); }),
            "nowhere is no folder; name one with config.json and model.safetensors");
}

// Token by token, or all at once: each goes to the same experts.
TEST(Generator, RemembersTokensOfAMixtureOfExperts) {
  const DeviceHandle device = make_cpu_device();
  LlamaConfig config{.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48};
  config.moe = {.experts = 4, .top_k = 2, .router = RouterKind::sigmoid, .balance = Balance::bias, .shared_experts = 1};
  const auto model = make_llama(config);
  materialize(*model, device, {}, 1);
  for_each_buffer(*model, [&](const std::string&, Buffer& buffer) {
    ops::copy_(buffer.value, Tensor::from<float>(device, {4}, {0.01f, -0.02f, 0.03f, 0}));
  });
  const std::vector<int32_t> tokens = {7, 250, 31, 7, 8, 100};
  Step step;
  step.training = false;
  step.rows_per_sample = 6;
  step.positions = Tensor::from<int32_t>(device, {6}, {0, 1, 2, 3, 4, 5});
  Saved saved(std::move(step));
  const std::vector<float> all = model->forward(Tensor::from(device, {6}, tokens), saved).rows(5, 6).to_vector<float>();
  Generator generator(*model, config, device);
  generator.feed({7, 250, 31});
  for (const int32_t token : {7, 8}) generator.feed({token});
  const std::vector<float> last = generator.feed({100}).to_vector<float>();
  ASSERT_EQ(last.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(last[i], all[i], 1e-5) << i;
}

TEST(ChooseToken, FollowsTheScores) {
  const DeviceHandle device = make_cpu_device();
  const Tensor scores = Tensor::from<float>(device, {1, 4}, {1, 3, 2, 3});
  RandomStream random(hash_key(1, "test"));
  EXPECT_EQ(choose_token(scores, {.temperature = 0}, random), 1);  // the first of equals
  std::vector<int> counts(4, 0), of_two(4, 0);
  constexpr int draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[choose_token(scores, {.temperature = 0.5}, random)];
  for (int i = 0; i < draws; ++i) ++of_two[choose_token(scores, {.temperature = 0.5, .top_k = 2}, random)];
  const double sum = std::exp(2) + std::exp(6) + std::exp(4) + std::exp(6);
  EXPECT_NEAR(counts[0], draws * std::exp(2) / sum, 5 * std::sqrt(draws * std::exp(2) / sum));
  EXPECT_NEAR(counts[2], draws * std::exp(4) / sum, 5 * std::sqrt(draws * std::exp(4) / sum));
  EXPECT_EQ(of_two[0] + of_two[2], 0);
  EXPECT_NEAR(of_two[1], draws / 2, 5 * std::sqrt(draws / 4));
}

}  // namespace
}  // namespace ninefold
