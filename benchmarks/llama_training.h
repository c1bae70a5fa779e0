// A Llama in training on one rank, without communication: what the step benchmark times.
#pragma once

#include <cmath>

#include "common/base/random.h"
#include "common/optim/clip.h"
#include "common/optim/optimizer.h"
#include "common/train/batches.h"
#include "common/train/options.h"
#include "common/train/peak.h"

namespace ninefold {

struct Configuration {
  const char* name;
  LlamaConfig llama;
  int64_t length, batch;
};

inline const Configuration configurations[] = {
    {"a", {.dim = 256, .layers = 4, .heads = 4, .kv_heads = 4, .ffn = 704, .vocab = 256}, 256, 8},
    {"b", {.dim = 512, .layers = 8, .heads = 8, .kv_heads = 8, .ffn = 1408, .vocab = 256}, 512, 4},
    {"c", {.dim = 768, .layers = 12, .heads = 12, .kv_heads = 4, .ffn = 2048, .vocab = 32000}, 512, 2},
};

// What fills a GPU: Llama 3.2 1B.
inline const Configuration billion = {
    "1b",
    {.dim = 2048, .layers = 16, .heads = 32, .kv_heads = 8, .ffn = 8192, .vocab = 128256, .tied_embeddings = true},
    4096,
    2};

// Learns one batch of random tokens by heart. Two of the same configuration do the same, to the bit.
class LlamaTraining {
 public:
  LlamaTraining(const Configuration& configuration, Dtype compute, DeviceType device = DeviceType::cpu)
      : configuration_(configuration),
        task_(configuration.llama, "", configuration.length),
        compute_(compute),
        device_(make_device(device, /*threads=*/1)) {
    materialize(*model_, device_, {.compute = compute, .gradient = Dtype::f32}, seed);
    optimizer_ = make_optimizer({.weight_decay = 0.1}, parameters_, seed);
    std::vector<int32_t> tokens(static_cast<size_t>(rows() + 1));
    RandomStream random(seed);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(configuration.llama.vocab));
    const MemoryScope scope(*device_, MemoryKind::data);
    batch_ = {Tensor::from(device_, {rows()}, std::vector<int32_t>(tokens.begin(), tokens.end() - 1)),
              Tensor::from(device_, {rows()}, std::vector<int32_t>(tokens.begin() + 1, tokens.end()))};
  }

  // Forward, loss, backward, norm and clipping of the gradients, AdamW. Returns the loss before the update.
  double step() {
    Step step = make_step(task_, device_, batch_);
    step.global_targets = rows();
    for (Parameter* parameter : parameters_) parameter->zero_gradient();
    const double loss = forward_backward(*model_, batch_.x, std::move(step)) / static_cast<double>(rows());
    for (Parameter* parameter : parameters_) parameter->complete_gradient();
    const double norm = std::sqrt(gradient_squares(parameters_).value());
    optimizer_->step(/*lr=*/1e-4, clip_factor(norm, /*limit=*/1.0));
    return loss;
  }

  // FLOP/s of the best matmul, now.
  double matmul_peak() const {
    return measure_matmul_peak(make_device(device_->type(), 1), compute_, task_.matmul_shapes(configuration_.batch),
                               clock());
  }
  // That of the processor, in which time that others have the core does not count; on a GPU, that of the wall.
  Clock clock() const { return device_->type() == DeviceType::cuda ? Clock::wall : Clock::thread; }
  // Tokens of a step.
  int64_t rows() const { return configuration_.batch * configuration_.length; }
  double flops() const { return task_.flops_per_sample() * static_cast<double>(configuration_.batch); }
  Device& device() { return *device_; }

 private:
  static constexpr uint64_t seed = 1;
  Configuration configuration_;
  LlamaTask task_;
  Dtype compute_;
  DeviceHandle device_;
  std::unique_ptr<Model> model_ = task_.make_model();
  std::vector<Parameter*> parameters_ = parameters_of(*model_);
  std::unique_ptr<Optimizer> optimizer_;
  Batch batch_;
};

}  // namespace ninefold
