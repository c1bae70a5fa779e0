// The two image classifiers of the course, both after PyTorch's examples.
#pragma once

#include "common/nn/model.h"

namespace ninefold {

// The MNIST CNN: two 3 x 3 convolutions, max-pool, dropout, two linear layers, log-softmax.
// Images [n, 1, 28, 28] -> scores [n, 10]. Children conv1, conv2, fc1, fc2 carry the parameters.
std::unique_ptr<Model> make_mnist_cnn(bool with_dropout = true);
int64_t mnist_cnn_parameters();
// FLOPs of one image's forward and backward; the first convolution has no gradient of its input.
double mnist_cnn_flops_per_image();
// Peak bytes of activations for a micro-batch of `images`, e bytes an element: in the backward of the second ReLU live
// the first one's output, 32 · 26², and three tensors of 64 · 24²: its own output and the gradients on both sides; the
// pixels, 28², where they were cast from f32; and a loss, 4 bytes.
int64_t mnist_cnn_activation_bytes(int64_t images, Dtype compute);
// The same where no backward follows: the second ReLU's input and output, 64 · 24² each.
int64_t mnist_cnn_evaluation_bytes(int64_t images, Dtype compute);

// Linear layers fc1, fc2, … with ReLUs between, log-softmax. [n, in] (or images of that size) -> scores [n, classes].
struct MlpConfig {
  int64_t in, hidden, classes;
  int64_t layers = 2;
};
// Throws UserError for fewer than two layers.
std::unique_ptr<Model> make_mlp(const MlpConfig& config);
// FLOPs of one image's forward and backward: 6 a weight.
double mlp_flops_per_image(const MlpConfig& config);

}  // namespace ninefold
