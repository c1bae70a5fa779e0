// How models lie in files: the strict reader of safetensors, and transformers' names and configurations.
#include <gtest/gtest.h>

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
  const Tensor values = Tensor::empty(device, {2}, Dtype::f32);
  EXPECT_EQ(sentence_of([&] {
              load_tensors(stored.tensors, "file", {{"position_ids", values, {}, {2}, {2}}}, true);
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
  EXPECT_EQ(transformers_name("layers.1.feed_forward.router.bias"),
            "model.layers.1.block_sparse_moe.gate.e_score_correction_bias");
  config.moe.router = RouterKind::sigmoid;
  config.moe.balance = Balance::bias;
  config.moe.shared_experts = 1;
  const nlohmann::json own = transformers_config(config, Dtype::f32, 16);
  EXPECT_EQ(own["model_type"], "ninefold_moe");
  EXPECT_EQ(nlohmann::json(transformers_config(llama_config_in(own, "file"), Dtype::f32, 16)), own);
}

// A flat range that begins in the first expert and ends in the third.
TEST(Transformers, PiecesOfAnExpertAreThoseOfItsRange) {
  Placement placement;
  placement.flat = {6, 12, {"dp_shard"}};
  const Tensor local;
  const CarriedTensor second{"experts.1", local, placement, {3, 2, 4}, {2, 4}, 8};
  EXPECT_EQ(second.pieces(), (std::vector<Piece>{{0, 2, 8}}));
  const CarriedTensor first{"experts.0", local, placement, {3, 2, 4}, {2, 4}, 0},
      third{"experts.2", local, placement, {3, 2, 4}, {2, 4}, 16};
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
}

TEST(Transformers, ScaledPositionsStandInEitherPlace) {
  const nlohmann::json rule = {{"rope_type", "llama3"},  {"factor", 8.0},
                               {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                               {"rope_theta", 500000.0}, {"original_max_position_embeddings", 8192}};
  const nlohmann::json plain = transformers_config({}, Dtype::f32, 128);
  const auto with = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json config = plain;
    config.erase("rope_parameters");
    config[key] = value;
    return config;
  };
  const auto refusal = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json other = rule;
    other[key] = value;
    return sentence_of([&] { llama_config_in(with("rope_scaling", other), "file"); });
  };
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const LlamaConfig llama = llama_config_in(with(key, rule), "file");
    EXPECT_EQ(llama.rope_scaling.factor, 8);
    EXPECT_EQ(llama.rope_scaling.original_length, 8192);
    EXPECT_EQ(llama.rope_theta, 500000);
    const nlohmann::json written = transformers_config(llama, Dtype::f32, 128);
    EXPECT_EQ(written["rope_parameters"], rule);
    EXPECT_EQ(written["rope_scaling"], rule);
  }
  EXPECT_FALSE(plain.contains("rope_scaling"));
  EXPECT_EQ(refusal("rope_type", "yarn"),
            "file: its rotary positions are scaled by the rule 'yarn', but this Llama has Llama 3.1's only, 'llama3'");
  EXPECT_EQ(refusal("type", "linear"),
            "file: its rotary positions are scaled by the rule 'linear', but this Llama has Llama 3.1's only, "
            "'llama3'");
  EXPECT_EQ(refusal("factor", nullptr), "file needs a number as factor");
  EXPECT_EQ(refusal("factor", 0.5), "factor (0.5) of scaled rotary positions must be at least 1");
  EXPECT_EQ(refusal("original_max_position_embeddings", 0),
            "file needs a number above 0 as original_max_position_embeddings");
  EXPECT_EQ(refusal("high_freq_factor", 1),
            "of scaled rotary positions, high_freq_factor (1) must be above low_freq_factor (1), and that above 0");
}

// Of Llama 3.1 8B, as transformers computes them (in f32): kept, interpolated, and slowed.
TEST(RopeScaling, GivesTheFrequenciesOfLlama31) {
  const LlamaConfig llama{.dim = 4096,
                          .heads = 32,
                          .rope_theta = 500000,
                          .rope_scaling = {.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4}};
  const std::vector<double> frequencies = llama.rope_frequencies();
  ASSERT_EQ(frequencies.size(), 64u);
  const std::pair<size_t, double> expected[] = {{0, 1.0},
                                                {1, 0.8146172165870667},
                                                {28, 0.0032114461064338684},
                                                {29, 0.0021665706299245358},
                                                {32, 0.0005248460220173001},
                                                {34, 0.0001785077911335975},
                                                {35, 9.556212171446532e-05},
                                                {63, 3.068925877869333e-07}};
  for (const auto& [pair, value] : expected) EXPECT_NEAR(frequencies[pair], value, 5e-7 * value) << pair;
  EXPECT_EQ(LlamaConfig().rope_frequencies(), ops::rope_frequencies(64, 10000));
}

}  // namespace
}  // namespace ninefold
