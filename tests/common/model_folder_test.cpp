// Models in files: the strict reader of safetensors, and folders as transformers writes them, against its own logits.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/train/generate.h"
#include "common/train/tensor_files.h"
#include "common/train/transformers.h"
#include "tests/support/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

const std::string test_data = NINEFOLD_TEST_DATA;

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string content(sizeof length, '\0');
  std::memcpy(content.data(), &length, sizeof length);
  return content + header + std::string(data_bytes, '\1');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

TEST(Safetensors, ReadsWhatItWrites) {
  const std::vector<TensorEntry> entries = {
      {"b", Dtype::f32, {2, 3}}, {"empty", Dtype::f32, {0, 4}}, {"a", Dtype::bf16, {5}}, {"one", Dtype::f16, {}}};
  std::string content = safetensors_header(entries);
  const size_t data = content.size();
  for (int i = 0; i < 36; ++i) content += static_cast<char>(i);
  const StoredTensors stored = parse_safetensors(content, "file");
  ASSERT_EQ(stored.tensors.size(), 4u);
  EXPECT_EQ(stored.metadata.at("format"), "pt");
  for (const TensorEntry& entry : entries) {
    EXPECT_EQ(stored.tensors.at(entry.name).dtype, entry.dtype);
    EXPECT_EQ(stored.tensors.at(entry.name).shape, entry.shape);
  }
  EXPECT_EQ(stored.tensors.at("a").bytes, content.substr(data + 24, 10));
  EXPECT_EQ(stored.tensors.at("one").bytes, content.substr(data + 34, 2));
}

TEST(Safetensors, RefusesWhatBreaksTheFormat) {
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  const auto braces = [](const std::string& inner) { return "{" + inner + "}"; };
  std::string huge = file_of(braces(a), 8);
  huge[7] = '\x80';  // a header of 2^63 bytes and more
  const std::pair<std::string, const char*> cases[] = {
      {"", "0 bytes do not hold the length of a header"},
      {std::string(7, '\0'), "7 bytes do not hold the length of a header"},
      {huge, "its header would be 92233720368547758"},
      {file_of(braces(a), 8).substr(0, 20), "its header is"},
      {file_of("", 0), "its header is no JSON"},
      {file_of("[]", 0), "its header is not a list of named tensors"},
      {file_of("{\"a\":", 0), "its header is no JSON"},
      {file_of("{\"\xff\":1}", 0), "its header is no JSON"},
      {file_of(braces(a), 4), "the tensor a lies at [0, 8), but the tensors have 4 bytes"},
      {file_of(braces(a), 12), "4 bytes at its end belong to no tensor"},
      {file_of(braces(a + "," + tensor("b", "F32", "[2]", "[4,12]")), 12), "the tensor b overlaps another"},
      {file_of(braces(a + "," + tensor("b", "F32", "[2]", "[12,20]")), 20), "4 bytes before the tensor b belong to no"},
      {file_of(braces(a + "," + tensor("a", "F32", "[2]", "[8,16]")), 16), "holds the tensor a twice"},
      {file_of(braces(tensor("a", "F32", "[3]", "[0,8]")), 8), "has 8 bytes, but [3] of type F32 need 12"},
      {file_of(braces(tensor("a", "F63", "[1]", "[0,8]")), 8), "is of type F63, which the format does not have"},
      {file_of(braces(tensor("a", "I64", "[2]", "[0,8]")), 8), "has 8 bytes, but [2] of type I64 need 16"},
      {file_of(braces(tensor("a", "F4", "[3]", "[0,2]")), 2), "does not end with a whole byte"},
      {file_of(braces(tensor("a", "F32", "[2]", "[8,0]")), 8), "lies at [8, 0)"},
      {file_of(braces(tensor("a", "F32", "[2]", "[0]")), 8), "needs dtype, shape and two data_offsets"},
      {file_of(braces(tensor("a", "F32", "2", "[0,8]")), 8), "has no shape"},
      {file_of(braces(tensor("a", "F32", "[-2]", "[0,8]")), 8), "has -2 where a size should be"},
      {file_of(braces(tensor("a", "F32", "[2.5]", "[0,8]")), 8), "has 2.5 where a size should be"},
      {file_of(braces(tensor("a", "F32", "[4294967296,4294967296]", "[0,8]")), 8), "is larger than the file"},
      {file_of(braces(tensor("a", "F32", "[2]", "[0,18446744073709551615]")), 8), "where a size should be"},
      {file_of(R"({"a":3})", 0), "needs dtype, shape and two data_offsets"},
      {file_of(R"({"__metadata__":{"a":3}})", 0), "a of its __metadata__ is no text"},
  };
  for (const auto& [content, sentence] : cases) {
    const std::string found = sentence_of([&content = content] { parse_safetensors(content, "file"); });
    EXPECT_NE(found.find(sentence), std::string::npos) << found << " | " << sentence;
  }
}

// They are refused only where a model needs them.
TEST(Safetensors, KnowsTypesThatThereAreNoTensorsOf) {
  std::string header = tensor("position_ids", "I64", "[2]", "[0,16]");
  header += "," + tensor("mask", "BOOL", "[3]", "[16,19]") + "," + tensor("codes", "F4", "[2,3]", "[19,22]");
  const StoredTensors stored =
      parse_safetensors(file_of("{" + header + "," + tensor("a", "F32", "[1]", "[22,26]") + "}", 26), "file");
  EXPECT_EQ(stored.tensors.at("position_ids").type, "I64");
  EXPECT_FALSE(stored.tensors.at("position_ids").dtype);
  EXPECT_EQ(stored.tensors.at("mask").bytes.size(), 3u);
  EXPECT_EQ(stored.tensors.at("codes").bytes.size(), 3u);
  EXPECT_EQ(stored.tensors.at("a").dtype, Dtype::f32);
  const DeviceHandle device = make_cpu_device();
  Parameter parameter({2}, {});
  const Tensor values = Tensor::empty(device, {2}, Dtype::f32);
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"position_ids", &parameter, values, {2}}}, true);
            }),
            "file: position_ids is of type I64, but this model needs F32");
}

TEST(Transformers, HasANameForEveryParameter) {
  const auto model = make_llama({.dim = 32, .layers = 11, .heads = 4, .kv_heads = 2, .ffn = 48});
  std::set<std::string> names;
  for (const Parameter* parameter : parameters_of(*model)) names.insert(transformers_name(parameter->name));
  EXPECT_EQ(names.size(), parameters_of(*model).size());
  EXPECT_EQ(transformers_name("layers.10.attention.wq.weight"), "model.layers.10.self_attn.q_proj.weight");
  EXPECT_EQ(transformers_name("layers.0.feed_forward.w2.weight"), "model.layers.0.mlp.down_proj.weight");
  EXPECT_THROW(transformers_name("layers.x.attention.wq.weight"), Error);
  EXPECT_THROW(transformers_name("layers.0.attention.wq.bias"), Error);
}

TEST(Transformers, ConfigurationsComeBack) {
  const LlamaConfig config{.dim = 96,
                           .layers = 3,
                           .heads = 6,
                           .kv_heads = 2,
                           .ffn = 200,
                           .vocab = 1000,
                           .rope_theta = 500000,
                           .norm_eps = 1e-6f,
                           .tied_embeddings = true};
  const nlohmann::json json = transformers_config(config, Dtype::bf16, 128);
  for (const char* key : {"architectures", "model_type", "hidden_size", "num_key_value_heads", "rope_parameters",
                          "tie_word_embeddings", "dtype", "head_dim", "rms_norm_eps", "vocab_size"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["dtype"], "bfloat16");
  EXPECT_EQ(json["rms_norm_eps"].dump(), "1e-06");
  EXPECT_EQ(nlohmann::json(transformers_config(llama_config_in(json, "file"), Dtype::bf16, 128)), json);
}

TEST(Transformers, ExpertsHaveATensorEach) {
  LlamaConfig config{.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48};
  config.moe.experts = 3;
  const auto model = make_llama(config);
  std::map<std::string, StoredPart> parts;
  for (const Parameter* parameter : parameters_of(*model)) {
    for (const StoredPart& part : ModelFormat().stored_parts(*parameter)) parts[part.name] = part;
  }
  EXPECT_TRUE(parts.contains("model.layers.1.block_sparse_moe.gate.weight"));
  const StoredPart& last = parts.at("model.layers.1.block_sparse_moe.experts.2.w2.weight");
  EXPECT_EQ(last.shape, (Shape{32, 48}));
  EXPECT_EQ(last.first, 2 * 32 * 48);
  const nlohmann::json mixtral = transformers_config(config, Dtype::f32, 16);
  EXPECT_EQ(mixtral["model_type"], "mixtral");
  EXPECT_EQ(mixtral["architectures"][0], "MixtralForCausalLM");
  EXPECT_EQ(mixtral["num_local_experts"], 3);
  EXPECT_EQ(nlohmann::json(transformers_config(llama_config_in(mixtral, "file"), Dtype::f32, 16)), mixtral);
  config.moe.router = RouterKind::sigmoid;
  config.moe.balance = Balance::bias;
  config.moe.shared_experts = 1;
  const nlohmann::json own = transformers_config(config, Dtype::f32, 16);
  EXPECT_EQ(own["model_type"], "ninefold_moe");
  EXPECT_EQ(nlohmann::json(transformers_config(llama_config_in(own, "file"), Dtype::f32, 16)), own);
}

// A flat range that begins in the first expert and ends in the third.
TEST(Transformers, PiecesOfAnExpertAreThoseOfItsRange) {
  Parameter parameter({3, 2, 4}, {});
  parameter.placement.flat = {6, 12, {"dp_shard"}};
  const Tensor local;
  const CarriedTensor second{"experts.1", &parameter, local, {2, 4}, 8};
  EXPECT_EQ(second.pieces(), (std::vector<Piece>{{0, 2, 8}}));
  const CarriedTensor first{"experts.0", &parameter, local, {2, 4}, 0},
      third{"experts.2", &parameter, local, {2, 4}, 16};
  EXPECT_EQ(first.pieces(), (std::vector<Piece>{{6, 0, 2}}));
  EXPECT_EQ(third.pieces(), (std::vector<Piece>{{0, 10, 2}}));
}

TEST(Transformers, ReadsOlderConfigurationsAndRefusesOtherModels) {
  nlohmann::json config = transformers_config({}, Dtype::f32, 128);
  for (const char* newer : {"rope_parameters", "head_dim", "num_key_value_heads", "tie_word_embeddings"}) {
    config.erase(newer);
  }
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(llama_config_in(config, "file").rope_theta, 500000);
  EXPECT_EQ(llama_config_in(config, "file").kv_heads, LlamaConfig().heads);
  const auto refusal = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json other = config;
    other[key] = value;
    return sentence_of([&] { llama_config_in(other, "file"); });
  };
  EXPECT_EQ(refusal("model_type", "gpt2"),
            "file is of a model of type 'gpt2', but this program trains 'llama' and 'mixtral'");
  EXPECT_EQ(refusal("hidden_act", "gelu"), "file: hidden_act is gelu, but this Llama has silu");
  EXPECT_EQ(refusal("attention_bias", true), "file: attention_bias is true, but this Llama has no biases");
  EXPECT_EQ(refusal("hidden_size", "many"), "file needs a number above 0 as hidden_size");
  EXPECT_EQ(refusal("hidden_size", 255), "dim (255) must be divisible by heads (4)");
  EXPECT_EQ(refusal("head_dim", 32), "file: head_dim is 32, but this Llama has heads of hidden_size / heads = 64");
  EXPECT_EQ(refusal("rope_scaling", {{"type", nullptr}, {"rope_type", "llama3"}}),
            "file: its rotary positions are scaled by the rule 'llama3', which this Llama does not have");
  EXPECT_EQ(refusal("rope_scaling", {{"rope_type", "yarn"}, {"factor", 8.0}}),
            "file: its rotary positions are scaled by the rule 'yarn', which this Llama does not have");
}

struct HuggingFace {
  // Without a type it computes in the folder's own.
  explicit HuggingFace(const std::string& name, std::optional<Dtype> compute = std::nullopt)
      : path(test_data + "/" + name),
        folder(path),
        config(llama_config_in(folder.config(), path)),
        expected(read_safetensors(path + "/expected.safetensors")),
        model(make_llama(config)) {
    const Dtype dtype = compute.value_or(folder.tensors().begin()->second.dtype.value());
    materialize(*model, device, {dtype, dtype, dtype, dtype}, 1);
    std::vector<CarriedTensor> tensors;
    for (const Parameter* parameter : parameters_of(*model)) {
      tensors.push_back({transformers_name(parameter->name), parameter, parameter->owned.value, parameter->shape});
    }
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

TEST(HuggingFace, ConvertsTypesAndWarnsOfWhatIsExtra) {
  const DeviceHandle device = make_cpu_device();
  const std::string content = safetensors_header({{"a", Dtype::bf16, {4}}, {"b", Dtype::f32, {1}}}) +
                              std::string("\x80\x3f\x00\x40\x40\x40\x80\x40\0\0\0\0", 12);  // 1, 2, 3, 4
  const StoredTensors stored = parse_safetensors(content, "file");
  Parameter parameter({4}, {});
  parameter.placement.flat = {1, 2, {"dp_shard"}};
  const Tensor f32 = Tensor::empty(device, {2}, Dtype::f32), bf16 = Tensor::empty(device, {2}, Dtype::bf16);
  load_tensors(stored.tensors, "file", {{"a", &parameter, f32, parameter.shape}}, true);
  EXPECT_EQ(f32.to_vector<float>(), (std::vector<float>{2, 3}));
  load_tensors(stored.tensors, "file", {{"a", &parameter, bf16, parameter.shape}}, false);
  EXPECT_EQ(ops::cast(bf16, Dtype::f32).to_vector<float>(), (std::vector<float>{2, 3}));
  EXPECT_EQ(warning_of_extra_tensors(stored.tensors, "file", {{"a", &parameter, f32, parameter.shape}}),
            "warning: file has 1 tensor(s) that this model does not have, and leaves out: b\n");
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"a", &parameter, f32, parameter.shape}}, false);
            }),
            "file: a is of type BF16, but this model needs F32");
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"c", &parameter, f32, parameter.shape}}, true);
            }),
            "file has no tensor c, which this model needs");
  parameter.shape = {5};
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"a", &parameter, f32, parameter.shape}}, true);
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
