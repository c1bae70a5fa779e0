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

// A tensor of a file: elements of a parameter that follow each other in its row-major order, from `first` on.
struct StoredPart {
  std::string name;
  Shape shape;
  int64_t first = 0;
};

// What a task tells of its model, so that a folder can hold it.
struct ModelFormat {
  nlohmann::ordered_json config;  // the content of config.json
  bool has_own_names = false;     // parameters are called in files as they are here
  // What a parameter or a buffer is called in a file; of the weights of experts, with a # for the number of the expert.
  std::string stored_name(const std::string& name) const;
  // The tensors in a file that a parameter is: one, or, of the weights of experts, one for each of them.
  std::vector<StoredPart> stored_parts(const Parameter& parameter) const;
};

// "layers.3.attention.wq.weight" -> "model.layers.3.self_attn.q_proj.weight"; of weights of experts, with a * for the
// number of the expert. Error for a name without a counterpart.
std::string transformers_name(const std::string& name);

// "float32", "bfloat16", …
std::string_view torch_name(Dtype dtype);

// Llama's config.json, or, with experts, Mixtral's; where no class of transformers holds the model, because of its
// router or of experts that every token visits, a `model_type` of our own. `length`: of the sequences that the model is
// trained on.
nlohmann::ordered_json transformers_config(const LlamaConfig& config, Dtype dtype, int64_t length);
// The other way. Throws UserError for a model that is neither, or one with what this Llama does not have. `name`
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
