#include "common/train/task.h"

#include <algorithm>

#include "common/train/transformers.h"

namespace ninefold {

LlamaTask::LlamaTask(const LlamaConfig& config, const std::string& path, int64_t length)
    : config_(config), length_(length) {
  config_.validate();
  if (path.empty()) return;
  tokens_ = std::make_unique<Tokens>(Tokens::load(path, config.vocab));
  train_ = std::make_unique<TokenDataset>(*tokens_, TokenSplit::train, length);
  evaluation_ = std::make_unique<TokenDataset>(*tokens_, TokenSplit::evaluation, length);
}

ModelFormat LlamaTask::format(Dtype stored) const { return {transformers_config(config_, stored, length_)}; }

const TokenDataset& LlamaTask::dataset(Split split) const {
  const auto& chosen = split == Split::train ? train_ : evaluation_;
  expect(chosen != nullptr, "a task without data was asked for samples");
  return *chosen;
}

int64_t LlamaTask::samples(Split split) const { return dataset(split).size(); }

Batch LlamaTask::load(const DeviceHandle& device, Split split, const std::vector<int64_t>& indices) const {
  auto [tokens, targets] = dataset(split).batch(device, indices);
  return {tokens, targets};
}

double LlamaTask::flops_per_sample() const {
  return static_cast<double>(length_) * llama_flops_per_token(config_, length_);
}

std::vector<MatmulShape> LlamaTask::matmul_shapes(int64_t samples) const {
  const int64_t tokens = samples * length_;
  return {{tokens, config_.dim, config_.dim}, {tokens, config_.ffn, config_.dim}, {tokens, config_.dim, config_.ffn}};
}

double LlamaTask::executed_flops_per_sample(const Recomputation& recomputation) const {
  return static_cast<double>(length_) * llama_executed_flops_per_token(config_, length_, recomputation);
}

int64_t LlamaTask::activation_bytes(int64_t samples, const Precision& precision, const Recomputation& recomputation,
                                    const std::vector<int64_t>& expert_rows) const {
  return llama_activation_bytes(config_, samples * length_, precision, recomputation,
                                {.rows = own_expert_rows(expert_rows)});
}

StageActivations LlamaTask::stage_activations(const Children& stage, int64_t samples, const Precision& precision,
                                              const Recomputation& recomputation) const {
  return llama_stage_activations(config_, llama_part(config_, stage), samples * length_, precision, recomputation);
}

Batch LlamaTask::on_paper(const DeviceHandle& device, int64_t samples) const {
  const Tensor tokens = Tensor::empty(device, {samples * length_}, Dtype::i32);
  return {tokens, tokens};
}

MnistTask::MnistTask(const std::string& folder, const std::optional<MlpConfig>& mlp)
    : mlp_(mlp), train_(Mnist::load(folder, MnistSplit::train)), evaluation_(Mnist::load(folder, MnistSplit::test)) {}

std::unique_ptr<Model> MnistTask::make_model() const { return mlp_ ? make_mlp(*mlp_) : make_mnist_cnn(); }

// No class of transformers holds them: names are those of here.
ModelFormat MnistTask::format(Dtype stored) const {
  nlohmann::ordered_json config = {{"model_type", mlp_ ? "mlp" : "mnist_cnn"}, {"dtype", torch_name(stored)}};
  if (mlp_) config.update({{"layers", mlp_->layers}, {"hidden_size", mlp_->hidden}});
  return {config, /*has_own_names=*/true};
}

Batch MnistTask::load(const DeviceHandle& device, Split split, const std::vector<int64_t>& indices) const {
  auto [images, labels] = this->images(split).batch(device, indices);
  return {images, labels};
}

double MnistTask::flops_per_sample() const { return mlp_ ? mlp_flops_per_image(*mlp_) : mnist_cnn_flops_per_image(); }

std::vector<MatmulShape> MnistTask::matmul_shapes(int64_t samples) const {
  if (mlp_) return {{samples, mlp_->hidden, mlp_->in}, {samples, mlp_->hidden, mlp_->hidden}};
  return {{samples, 128, 9216}};
}

// Each of its layers is one operation, which is never computed again for its own backward.
double MnistTask::executed_flops_per_sample(const Recomputation&) const { return flops_per_sample(); }

int64_t MnistTask::activation_bytes(int64_t samples, const Precision& precision, const Recomputation&,
                                    const std::vector<int64_t>&) const {
  return mlp_ ? 0 : mnist_cnn_activation_bytes(samples, precision.compute);
}

int64_t MnistTask::evaluation_bytes(int64_t samples, const Precision& precision) const {
  return mlp_ ? 0 : mnist_cnn_evaluation_bytes(samples, precision.compute);
}

Batch MnistTask::on_paper(const DeviceHandle& device, int64_t samples) const {
  return {Tensor::empty(device, {samples, 1, Mnist::side, Mnist::side}, Dtype::f32),
          Tensor::empty(device, {samples}, Dtype::i32)};
}

}  // namespace ninefold
