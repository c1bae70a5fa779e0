// Models in folders as Hugging Face's transformers writes and reads them: config.json, and safetensors files whose
// tensors have names of their own.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/nn/llama.h"
#include "common/tensor/safetensors.h"

namespace ninefold {

// What a task tells of its model, so that a folder can hold it.
struct ModelFormat {
  nlohmann::ordered_json config;  // the content of config.json
  bool is_of_transformers = true;
  // The name in a file of the parameter that is called `name` here.
  std::string stored_name(const std::string& name) const;
};

// "layers.3.attention.wq.weight" -> "model.layers.3.self_attn.q_proj.weight". Error for a name without a counterpart.
std::string transformers_name(const std::string& name);

// "float32", "bfloat16", …
std::string_view torch_name(Dtype dtype);

// Llama's config.json. `length`: of the sequences that the model is trained on.
nlohmann::ordered_json transformers_config(const LlamaConfig& config, Dtype dtype, int64_t length);
// The other way. Throws UserError for a model that is no Llama, or one with what this Llama does not have. `name`
// stands for the file in sentences.
LlamaConfig llama_config_in(const nlohmann::json& config, const std::string& name);

// Reads a file of JSON. Throws UserError.
nlohmann::json read_json(const std::string& path);

// The tensors of a folder: of model.safetensors, or of the several files that model.safetensors.index.json lists.
class ModelFolder {
 public:
  // Throws UserError for what is missing or damaged.
  explicit ModelFolder(const std::string& path);

  const nlohmann::json& config() const { return config_; }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  void open_all(const std::string& path, const nlohmann::json& index);
  nlohmann::json config_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace ninefold
