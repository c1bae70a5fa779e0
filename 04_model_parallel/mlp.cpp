// Model parallelism in one page: two layers on two ranks, and between them a send and a receive in each direction. At
// the end every rank trains the whole model by itself and compares its layer. (After PyTorch's model-parallel
// tutorial.)
//
// ./run 04/mlp
#include "01_collectives/collectives.h"
#include "common/base/options.h"
#include "common/comm/control.h"
#include "common/nn/classifiers.h"
#include "common/optim/optimizer.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

constexpr int64_t images = 32, inputs = 64, hidden = 128, classes = 10;
constexpr Children first{0, 3}, second{3, 4};  // flatten, fc1, relu1 | fc2, and then the loss
constexpr size_t fc1 = 1, fc2 = 3;             // the children with parameters
constexpr double learning_rate = 0.5;
constexpr uint64_t seed = 1;

// Images that everyone can make alike, and what a forward needs to know of them.
struct Data {
  Tensor x;
  Step step{};
  explicit Data(const DeviceHandle& device) : x(Tensor::empty(device, {images, inputs}, Dtype::f32)) {
    ops::fill_random_(x, {.kind = ops::Distribution::Kind::normal, .width = 1}, /*key=*/7, /*first_element=*/0);
    std::vector<int32_t> labels(images);
    for (int32_t i = 0; i < images; ++i) labels[i] = i % classes;
    step.targets = Tensor::from(device, {images}, labels);
    step.global_targets = images;
  }
};

// Rank 0: the first layer. It knows the images.
double step_of_first(Model& model, const Data& data, const Group& ranks) {
  Saved saved(data.step);
  const Tensor h = model.forward(data.x, saved, first);
  ranks.send(h, 1);
  const Tensor dh = Tensor::empty(h.device(), h.shape(), h.dtype());
  ranks.recv(dh, 1);
  model.backward(dh, saved, first);
  return 0;  // the loss is on the other rank
}

// Rank 1: the second layer and the loss. It knows the labels.
double step_of_second(Model& model, const Data& data, const Group& ranks) {
  Saved saved(data.step);
  const Tensor h = Tensor::empty(data.x.device(), {images, hidden}, Dtype::f32);
  ranks.recv(h, 0);
  model.loss().forward(model.forward(h, saved, second), saved);
  const double loss = ops::sum(saved.step().losses) / images;
  ranks.send(model.backward(model.loss().backward(saved), saved, second), 0);
  return loss;
}

// The same steps where the whole model is in one place.
double step_of_all(Model& model, const Data& data) { return forward_backward(model, data.x, data.step) / images; }

// `steps` times: gradients by step(), and an update. Returns the losses.
template <typename OneStep>
std::vector<double> train(const std::vector<Parameter*>& parameters, int64_t steps, const OneStep& step) {
  const auto optimizer = make_optimizer({.kind = OptimizerKind::sgd}, parameters, seed);
  std::vector<double> losses;
  for (int64_t i = 0; i < steps; ++i) {
    for (Parameter* parameter : parameters) parameter->zero_gradient();
    losses.push_back(step());
    optimizer->step(learning_rate, /*gradient_scale=*/1);
  }
  return losses;
}

bool same_bits(const std::vector<Parameter*>& own, const std::vector<Parameter*>& serial) {
  return std::equal(own.begin(), own.end(), serial.begin(), serial.end(), [](Parameter* a, Parameter* b) {
    return a->value.to_vector<float>() == b->value.to_vector<float>();
  });
}

int run(int argc, char** argv) {
  int64_t steps = 20;
  Options options("04/mlp", "A two-layer MLP on two ranks, with explicit send and receive.");
  options.add("--steps", steps, "steps of gradient descent", {.minimum = 1});
  if (const auto help = options.parse(argc, argv)) return print_help(*help);

  World world({.device = make_cpu_device()}, collectives::ours());
  require(world.size() == 2, "this MLP has two layers, one a rank: start it on 2 ranks, not {}", world.size());
  const Group& ranks = world.group();
  const bool is_first = ranks.rank() == 0;
  const Data data(world.device());

  const auto model = make_mlp({inputs, hidden, classes});
  Layer& own = model->child(is_first ? fc1 : fc2);  // the other layer never gets memory
  materialize(own, world.device(), {}, seed);
  std::vector<double> losses = train(parameters_of(own), steps, [&] {
    return is_first ? step_of_first(*model, data, ranks) : step_of_second(*model, data, ranks);
  });
  losses = control::broadcast(ranks, losses, /*root=*/1);

  const auto serial = make_mlp({inputs, hidden, classes});
  materialize(*serial, world.device(), {}, seed);
  const auto serial_losses = train(parameters_of(*serial), steps, [&] { return step_of_all(*serial, data); });
  const bool is_equal =
      losses == serial_losses && same_bits(parameters_of(own), parameters_of(serial->child(is_first ? fc1 : fc2)));
  const bool passed = control::all_true(ranks, is_equal);
  if (!is_first) return passed ? 0 : 1;
  for (int64_t step = 0; step < steps; ++step) fmt::print("step {:3}   loss {:.6f}\n", step, losses[step]);
  fmt::print("{}: losses and both layers against the same model on one rank\n",
             passed ? "check passed, bit-identical" : "CHECK FAILED");
  return passed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
