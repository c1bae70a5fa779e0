// A task is a model with its data: what is trained, on what, and what one sample costs.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "common/data/mnist.h"
#include "common/data/tokens.h"
#include "common/nn/classifiers.h"
#include "common/nn/llama_activations.h"
#include "common/nn/model.h"

namespace ninefold {

struct ModelFormat;  // common/train/transformers.h

// Inputs and targets of a few samples, booked under MemoryKind::data.
struct Batch {
  Tensor x;        // tokens i32 [n * length], or images f32 [n, 1, 28, 28]
  Tensor targets;  // i32, one a row
  // Of each sample, the positions whose rows these are; empty: all, in order.
  std::vector<int32_t> positions{};
};

enum class Split { train, evaluation };

// A matmul [m, k] · [n, k]ᵀ that the model makes.
struct MatmulShape {
  int64_t m, n, k;
};

// Samples are sequences or images. The evaluation split is never trained on.
class Task {
 public:
  virtual ~Task() = default;
  // The whole model, without storage.
  virtual std::unique_ptr<Model> make_model() const = 0;
  // How the model, with parameters of this type, lies in a folder.
  virtual ModelFormat format(Dtype stored) const = 0;
  virtual int64_t samples(Split split) const = 0;
  virtual Batch load(const DeviceHandle& device, Split split, const std::vector<int64_t>& indices) const = 0;
  // Targets in one sample: the sequence length, or 1. Also the rows of an activation that belong to one sample.
  virtual int64_t rows_per_sample() const = 0;
  // What a row is called: "tokens", "images".
  virtual std::string_view unit() const = 0;
  // FLOPs of one sample's forward and backward, by formula.
  virtual double flops_per_sample() const = 0;
  // The matmuls of a micro-batch of `samples`, as candidates for the machine's peak.
  virtual std::vector<MatmulShape> matmul_shapes(int64_t samples) const = 0;
  // FLOPs of the matmuls, attention and convolutions that one sample really takes, those computed again included.
  virtual double executed_flops_per_sample(const Recomputation& recomputation) const = 0;
  // Peak bytes of activations of one micro-batch, predicted by formula; 0 where there is none. `expert_rows`: that
  // the experts of each layer take; where it is empty they take all that come.
  virtual int64_t activation_bytes(int64_t samples, const Precision& precision, const Recomputation& recomputation,
                                   const std::vector<int64_t>& expert_rows = {}) const = 0;
  // The same for a forward of an evaluation; 0 where evaluations are of no more samples than a micro-batch, which takes
  // less.
  virtual int64_t evaluation_bytes(int64_t /*samples*/, const Precision& /*precision*/) const { return 0; }
  // The same for a stage of a pipeline, some of the model's children; 0 where there is no formula.
  virtual StageActivations stage_activations(const Children& /*stage*/, int64_t /*samples*/,
                                             const Precision& /*precision*/,
                                             const Recomputation& /*recomputation*/) const {
    return {};
  }
  // A micro-batch of no samples in particular, for models on paper: `device` is meta.
  virtual Batch on_paper(const DeviceHandle& device, int64_t samples) const = 0;
};

// Next-token prediction with Llama on the tokens of a file.
class LlamaTask : public Task {
 public:
  // An empty path: no data, for models on paper.
  LlamaTask(const LlamaConfig& config, const std::string& path, int64_t length);
  std::unique_ptr<Model> make_model() const override { return make_llama(config_); }
  ModelFormat format(Dtype stored) const override;
  int64_t samples(Split split) const override;
  Batch load(const DeviceHandle& device, Split split, const std::vector<int64_t>& indices) const override;
  int64_t rows_per_sample() const override { return length_; }
  std::string_view unit() const override { return "tokens"; }
  double flops_per_sample() const override;
  std::vector<MatmulShape> matmul_shapes(int64_t samples) const override;
  double executed_flops_per_sample(const Recomputation& recomputation) const override;
  int64_t activation_bytes(int64_t samples, const Precision& precision, const Recomputation& recomputation,
                           const std::vector<int64_t>& expert_rows = {}) const override;
  StageActivations stage_activations(const Children& stage, int64_t samples, const Precision& precision,
                                     const Recomputation& recomputation) const override;
  Batch on_paper(const DeviceHandle& device, int64_t samples) const override;

 private:
  const TokenDataset& dataset(Split split) const;
  LlamaConfig config_;
  int64_t length_;
  std::unique_ptr<Tokens> tokens_;
  std::unique_ptr<TokenDataset> train_, evaluation_;
};

// Digits: the MNIST CNN of the PyTorch examples, or an MLP.
class MnistTask : public Task {
 public:
  // Without an MLP: the CNN.
  explicit MnistTask(const std::string& folder, const std::optional<MlpConfig>& mlp = std::nullopt);
  std::unique_ptr<Model> make_model() const override;
  ModelFormat format(Dtype stored) const override;
  int64_t samples(Split split) const override { return images(split).size(); }
  Batch load(const DeviceHandle& device, Split split, const std::vector<int64_t>& indices) const override;
  int64_t rows_per_sample() const override { return 1; }
  std::string_view unit() const override { return "images"; }
  double flops_per_sample() const override;
  std::vector<MatmulShape> matmul_shapes(int64_t samples) const override;
  double executed_flops_per_sample(const Recomputation& recomputation) const override;
  int64_t activation_bytes(int64_t samples, const Precision& precision, const Recomputation& recomputation,
                           const std::vector<int64_t>& expert_rows = {}) const override;
  int64_t evaluation_bytes(int64_t samples, const Precision& precision) const override;
  Batch on_paper(const DeviceHandle& device, int64_t samples) const override;

 private:
  const Mnist& images(Split split) const { return split == Split::train ? train_ : evaluation_; }
  std::optional<MlpConfig> mlp_;
  Mnist train_, evaluation_;
};

}  // namespace ninefold
