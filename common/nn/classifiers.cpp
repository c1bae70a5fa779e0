#include "common/nn/classifiers.h"

#include <cmath>

#include "common/nn/linear.h"
#include "common/nn/loss.h"
#include "common/nn/vision.h"

namespace ninefold {
namespace {

// Initial values as torch.nn.Linear's.
std::unique_ptr<Layer> torch_linear(int64_t in, int64_t out) {
  const ops::Distribution initial{.kind = ops::Distribution::Kind::uniform,
                                  .width = 1 / std::sqrt(static_cast<double>(in))};
  return std::make_unique<Linear>(in, out, initial, initial);
}

}  // namespace

std::unique_ptr<Model> make_mnist_cnn(bool with_dropout) {
  auto model = std::make_unique<Model>(std::make_unique<LogSoftmaxNllLoss>());
  model->add("conv1", std::make_unique<Convolution>(1, 32, 3, /*is_first=*/true));
  model->add("relu1", std::make_unique<Relu>());
  model->add("conv2", std::make_unique<Convolution>(32, 64, 3));
  model->add("relu2", std::make_unique<Relu>());
  model->add("pool", std::make_unique<MaxPool>());
  if (with_dropout) model->add("dropout1", std::make_unique<Dropout>(0.25f, 0));
  model->add("flatten", std::make_unique<Flatten>());
  model->add("fc1", torch_linear(64 * 12 * 12, 128));
  model->add("relu3", std::make_unique<Relu>());
  if (with_dropout) model->add("dropout2", std::make_unique<Dropout>(0.5f, 1));
  model->add("fc2", torch_linear(128, 10));
  model->name_parameters();
  return model;
}

int64_t mnist_cnn_parameters() { return 32 * 9 + 32 + 64 * 32 * 9 + 64 + 128 * 9216 + 128 + 10 * 128 + 10; }

double mnist_cnn_flops_per_image() {
  const double conv1 = 2.0 * 26 * 26 * 32 * 9, conv2 = 2.0 * 24 * 24 * 64 * 32 * 9;
  const double linear = 2.0 * (128 * 9216 + 10 * 128);
  return 2 * conv1 + 3 * (conv2 + linear);
}

int64_t mnist_cnn_activation_bytes(int64_t images, Dtype compute) {
  const int64_t cast = compute == Dtype::f32 ? 0 : 28 * 28;  // pixels are f32
  return images * (size_of(compute) * (cast + 32 * 26 * 26 + 3 * 64 * 24 * 24) + 4);
}

int64_t mnist_cnn_evaluation_bytes(int64_t images, Dtype compute) {
  return images * size_of(compute) * 2 * 64 * 24 * 24;
}

std::unique_ptr<Model> make_mlp(const MlpConfig& config) {
  require(config.layers >= 2, "layers ({}) must be at least 2: one into the hidden values and one out of them",
          config.layers);
  auto model = std::make_unique<Model>(std::make_unique<LogSoftmaxNllLoss>());
  model->add("flatten", std::make_unique<Flatten>());
  for (int64_t layer = 1; layer <= config.layers; ++layer) {
    const int64_t in = layer == 1 ? config.in : config.hidden;
    const int64_t out = layer == config.layers ? config.classes : config.hidden;
    model->add(fmt::format("fc{}", layer), torch_linear(in, out));
    if (layer < config.layers) model->add(fmt::format("relu{}", layer), std::make_unique<Relu>());
  }
  model->name_parameters();
  return model;
}

double mlp_flops_per_image(const MlpConfig& config) {
  const int64_t hidden = (config.layers - 2) * config.hidden * config.hidden;
  return 6.0 * static_cast<double>(config.in * config.hidden + hidden + config.hidden * config.classes);
}

}  // namespace ninefold
