#include "common/train/transformers.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "common/data/file.h"

namespace ninefold {
namespace {

// In a name `*` stands for a number, and # for that of an expert, of which a parameter here has all.
struct NamePair {
  std::string_view here, there;
};
constexpr NamePair names[] = {
    {"tok_embeddings.weight", "model.embed_tokens.weight"},
    {"layers.*.attention_norm.weight", "model.layers.*.input_layernorm.weight"},
    {"layers.*.attention.wq.weight", "model.layers.*.self_attn.q_proj.weight"},
    {"layers.*.attention.wk.weight", "model.layers.*.self_attn.k_proj.weight"},
    {"layers.*.attention.wv.weight", "model.layers.*.self_attn.v_proj.weight"},
    {"layers.*.attention.wo.weight", "model.layers.*.self_attn.o_proj.weight"},
    {"layers.*.ffn_norm.weight", "model.layers.*.post_attention_layernorm.weight"},
    {"layers.*.feed_forward.w1.weight", "model.layers.*.mlp.gate_proj.weight"},
    {"layers.*.feed_forward.w2.weight", "model.layers.*.mlp.down_proj.weight"},
    {"layers.*.feed_forward.w3.weight", "model.layers.*.mlp.up_proj.weight"},
    {"layers.*.feed_forward.router.weight", "model.layers.*.block_sparse_moe.gate.weight"},
    {"layers.*.feed_forward.router.bias", "model.layers.*.block_sparse_moe.gate.e_score_correction_bias"},
    {"layers.*.feed_forward.experts.w1", "model.layers.*.block_sparse_moe.experts.#.w1.weight"},
    {"layers.*.feed_forward.experts.w2", "model.layers.*.block_sparse_moe.experts.#.w2.weight"},
    {"layers.*.feed_forward.experts.w3", "model.layers.*.block_sparse_moe.experts.#.w3.weight"},
    {"layers.*.feed_forward.shared_experts.w1.weight", "model.layers.*.shared_expert.gate_proj.weight"},
    {"layers.*.feed_forward.shared_experts.w2.weight", "model.layers.*.shared_expert.down_proj.weight"},
    {"layers.*.feed_forward.shared_experts.w3.weight", "model.layers.*.shared_expert.up_proj.weight"},
    {"norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The numbers that stand in `name` where `pattern` has stars; nothing where the two differ otherwise.
std::optional<std::vector<std::string>> numbers_in(std::string_view name, std::string_view pattern) {
  std::vector<std::string> numbers;
  size_t at = 0;
  for (const char expected : pattern) {
    if (expected != '*') {
      if (at == name.size() || name[at++] != expected) return std::nullopt;
      continue;
    }
    std::string& number = numbers.emplace_back();
    while (at < name.size() && is_digit(name[at])) number += name[at++];
    if (number.empty()) return std::nullopt;
  }
  return at == name.size() ? std::optional(numbers) : std::nullopt;
}

std::string with_numbers(std::string_view pattern, const std::vector<std::string>& numbers) {
  std::string name;
  auto number = numbers.begin();
  for (const char c : pattern) {
    if (c == '*') name += *number++;
    if (c != '*') name += c;
  }
  return name;
}

// A value of config.json, or another where there is none or null.
template <typename T>
T value_in(const nlohmann::json& config, const std::string& key, const T& otherwise, const std::string& name) {
  if (!config.contains(key) || config[key].is_null()) return otherwise;
  try {
    return config[key].get<T>();
  } catch (const nlohmann::json::exception&) {
    require(false, "{}: {} is {}, which is no value for it", name, key, config[key].dump());
    throw;
  }
}

int64_t size_in(const nlohmann::json& config, const std::string& key, const std::string& name) {
  require(config.contains(key) && config[key].is_number_integer() && config[key].get<int64_t>() > 0,
          "{} needs a number above 0 as {}", name, key);
  return config[key];
}

double number_in(const nlohmann::json& object, const std::string& key, const std::string& name) {
  require(object.contains(key) && object[key].is_number(), "{} needs a number as {}", name, key);
  return object[key];
}

// Newer files have all of it in rope_parameters, older ones rope_theta and rope_scaling at the top.
void read_rope(const nlohmann::json& config, const std::string& name, LlamaConfig& llama) {
  llama.rope_theta = value_in(config, "rope_theta", llama.rope_theta, name);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = value_in(config, key, nlohmann::json::object(), name);
    require(rope.is_object(), "{}: {} is {}, which is no list of named values", name, key, rope.dump());
    llama.rope_theta = value_in(rope, "rope_theta", llama.rope_theta, name);
    for (const char* spelling : {"type", "rope_type"}) {
      const auto type = value_in<std::string>(rope, spelling, "default", name);
      require(type == "default" || type == "llama3",
              "{}: its rotary positions are scaled by the rule '{}', but this Llama has Llama 3.1's only, 'llama3'",
              name, type);
      if (type == "default") continue;
      llama.rope_scaling = {.factor = number_in(rope, "factor", name),
                            .low_freq_factor = number_in(rope, "low_freq_factor", name),
                            .high_freq_factor = number_in(rope, "high_freq_factor", name),
                            .original_length = size_in(rope, "original_max_position_embeddings", name)};
    }
  }
}

nlohmann::ordered_json rope_parameters(const LlamaConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.factor == 1) return {{"rope_theta", config.rope_theta}, {"rope_type", "default"}};
  return {{"factor", scaling.factor},
          {"high_freq_factor", scaling.high_freq_factor},
          {"low_freq_factor", scaling.low_freq_factor},
          {"original_max_position_embeddings", scaling.original_length},
          {"rope_theta", config.rope_theta},
          {"rope_type", "llama3"}};
}

constexpr std::string_view own_mixture = "ninefold_moe";
constexpr std::string_view router_names[] = {"softmax", "topk_softmax", "sigmoid"};

// Mixtral's routers are softmax over all experts, with weights normalised over those chosen, and no token is dropped by
// the model itself.
void add_experts(nlohmann::ordered_json& json, const MoeConfig& moe) {
  // The one expert of Switch has a gate below 1, and Mixtral has no such thing.
  const bool is_normalised =
      moe.router == RouterKind::topk_softmax || (moe.router == RouterKind::softmax && moe.top_k > 1);
  const bool is_mixtral = is_normalised && moe.balance != Balance::bias && moe.shared_experts == 0;
  json["architectures"] = {is_mixtral ? "MixtralForCausalLM" : "NinefoldMoeForCausalLM"};
  json["model_type"] = is_mixtral ? "mixtral" : own_mixture;
  json["num_local_experts"] = moe.experts;
  json["num_experts_per_tok"] = moe.top_k;
  json["output_router_logits"] = false;
  json["router_aux_loss_coef"] = moe.balance_coefficient;
  json["router_jitter_noise"] = 0.0;
  json["sliding_window"] = nullptr;
  if (is_mixtral) return;
  json["router_scores"] = router_names[static_cast<size_t>(moe.router)];
  json["router_has_bias"] = moe.balance == Balance::bias;
  json["num_shared_experts"] = moe.shared_experts;
}

MoeConfig experts_in(const nlohmann::json& config, const std::string& name) {
  require(value_in(config, "sliding_window", int64_t{0}, name) == 0,
          "{}: sliding_window is set, but this Llama attends to all positions before", name);
  MoeConfig moe{.experts = size_in(config, "num_local_experts", name),
                .top_k = size_in(config, "num_experts_per_tok", name)};
  const auto scores = value_in<std::string>(config, "router_scores", moe.top_k > 1 ? "softmax" : "topk_softmax", name);
  const auto* const router = std::find(std::begin(router_names), std::end(router_names), scores);
  require(router != std::end(router_names), "{}: router_scores is {}, which is no router here", name, scores);
  moe.router = static_cast<RouterKind>(router - std::begin(router_names));
  moe.balance_coefficient = value_in(config, "router_aux_loss_coef", moe.balance_coefficient, name);
  if (value_in(config, "router_has_bias", false, name)) moe.balance = Balance::bias;
  moe.shared_experts = value_in(config, "num_shared_experts", int64_t{0}, name);
  return moe;
}

}  // namespace

std::string_view torch_name(Dtype dtype) {
  return dtype == Dtype::bf16 ? "bfloat16" : dtype == Dtype::f16 ? "float16" : "float32";
}

std::string transformers_name(const std::string& name) {
  for (const NamePair& pair : names) {
    if (const auto numbers = numbers_in(name, pair.here)) return with_numbers(pair.there, *numbers);
  }
  expect(false, "transformers has no name for {}", name);
  return {};
}

std::string ModelFormat::stored_name(const std::string& name) const {
  return has_own_names ? name : transformers_name(name);
}

std::vector<StoredPart> ModelFormat::stored_parts(const Parameter& parameter) const {
  const std::string name = stored_name(parameter.name);
  const size_t place = name.find('#');
  if (place == std::string::npos) return {{name, parameter.shape}};
  const Shape of_expert(parameter.shape.begin() + 1, parameter.shape.end());
  std::vector<StoredPart> parts;
  for (int64_t expert = 0; expert < parameter.shape[0]; ++expert) {
    std::string numbered = name;
    numbered.replace(place, 1, fmt::format("{}", expert));
    parts.push_back({std::move(numbered), of_expert, expert * elements(of_expert)});
  }
  return parts;
}

nlohmann::ordered_json transformers_config(const LlamaConfig& config, Dtype dtype, int64_t length) {
  // Through the shortest text: 1e-05 and not 9.999999747378752e-06.
  const double norm_eps = std::stod(fmt::format("{}", config.norm_eps));
  nlohmann::ordered_json json = {{"architectures", {"LlamaForCausalLM"}},
                                 {"attention_bias", false},
                                 {"attention_dropout", 0.0},
                                 {"bos_token_id", nullptr},
                                 {"dtype", torch_name(dtype)},
                                 {"eos_token_id", nullptr},
                                 {"head_dim", config.head_dim()},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", config.dim},
                                 {"initializer_range", 0.02},
                                 {"intermediate_size", config.ffn},
                                 {"max_position_embeddings", length},
                                 {"mlp_bias", false},
                                 {"model_type", "llama"},
                                 {"num_attention_heads", config.heads},
                                 {"num_hidden_layers", config.layers},
                                 {"num_key_value_heads", config.kv_heads},
                                 {"pad_token_id", nullptr},
                                 {"pretraining_tp", 1},
                                 {"rms_norm_eps", norm_eps},
                                 {"rope_parameters", rope_parameters(config)},
                                 {"rope_theta", config.rope_theta},  // where older versions look
                                 {"tie_word_embeddings", config.tied_embeddings},
                                 {"use_cache", true},
                                 {"vocab_size", config.vocab}};
  if (config.rope_scaling.factor != 1) json["rope_scaling"] = json["rope_parameters"];  // where older versions look
  if (config.moe.experts > 0) add_experts(json, config.moe);
  return json;
}

LlamaConfig llama_config_in(const nlohmann::json& config, const std::string& name) {
  const auto type = value_in<std::string>(config, "model_type", "", name);
  require(type == "llama" || type == "mixtral" || type == own_mixture,
          "{} is of a model of type '{}', but this program trains 'llama' and 'mixtral'", name, type);
  const auto activation = value_in<std::string>(config, "hidden_act", "silu", name);
  require(activation == "silu", "{}: hidden_act is {}, but this Llama has silu", name, activation);
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    require(!value_in(config, key, false, name), "{}: {} is true, but this Llama has no biases", name, key);
  }
  LlamaConfig llama{.dim = size_in(config, "hidden_size", name),
                    .layers = size_in(config, "num_hidden_layers", name),
                    .heads = size_in(config, "num_attention_heads", name),
                    .kv_heads = 0,
                    .ffn = size_in(config, "intermediate_size", name),
                    .vocab = size_in(config, "vocab_size", name),
                    .norm_eps = value_in(config, "rms_norm_eps", 1e-6f, name),
                    .tied_embeddings = value_in(config, "tie_word_embeddings", false, name)};
  llama.kv_heads = value_in(config, "num_key_value_heads", llama.heads, name);
  read_rope(config, name, llama);
  if (type != "llama") llama.moe = experts_in(config, name);
  llama.validate();
  const int64_t head_dim = value_in(config, "head_dim", llama.head_dim(), name);
  require(head_dim == llama.head_dim(), "{}: head_dim is {}, but this Llama has heads of hidden_size / heads = {}",
          name, head_dim, llama.head_dim());
  return llama;
}

nlohmann::json read_json(const std::string& path) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& error) {
    require(false, "{} is no JSON: {}", path, error.what());
  }
  require(json.is_object(), "{} is no list of named values", path);
  return json;
}

ModelFolder::ModelFolder(const std::string& path) {
  std::error_code ignored;
  require(std::filesystem::is_directory(path, ignored),
          "{} is no folder; name one with config.json and model.safetensors", path);
  config_ = read_json(path + "/config.json");
  const std::string index = path + "/model.safetensors.index.json";
  if (std::filesystem::exists(path + "/model.safetensors", ignored)) {
    files_.emplace_back(path + "/model.safetensors");
    tensors_ = files_.back().tensors();
  } else {
    require(std::filesystem::exists(index, ignored),
            "{} has neither model.safetensors nor model.safetensors.index.json", path);
    open_all(path, read_json(index));
  }
}

// Every tensor is where the index says.
void ModelFolder::open_all(const std::string& path, const nlohmann::json& index) {
  const auto places = value_in(index, "weight_map", std::map<std::string, std::string>(), path + "'s index");
  require(!places.empty(), "{}/model.safetensors.index.json has no weight_map", path);
  std::map<std::string, size_t> opened;
  for (const auto& [tensor, file] : places) {
    require(file.find('/') == std::string::npos, "{}'s index names {}, which is no file of the folder", path, file);
    if (!opened.contains(file)) {
      opened[file] = files_.size();
      files_.emplace_back(fmt::format("{}/{}", path, file));
    }
    const auto& stored = files_[opened[file]].tensors();
    require(stored.contains(tensor), "{}/{} has no tensor {}, which the index says is there", path, file, tensor);
    tensors_.emplace(tensor, stored.at(tensor));
  }
}

}  // namespace ninefold
