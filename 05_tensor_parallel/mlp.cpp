// The smallest tensor parallelism, after PyTorch's tensor_parallel_example.py: two linear layers, the first cut by
// output features, the second by input features, and one sum in each direction. Rank 0's words are those of every rank:
// each trains the whole model too, and compares its part.
//
// ./run 05/mlp -n 2
#include "01_collectives/collectives.h"
#include "05_tensor_parallel/parallelize.h"
#include "common/base/random.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"
#include "common/nn/classifiers.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

constexpr MlpConfig config = {.in = 10, .hidden = 32, .classes = 5};
constexpr int64_t rows = 20, steps = 10;
constexpr uint64_t seed = 1;

// A model in training: whole, or this rank's part of it.
struct Training {
  Training(const DeviceHandle& device, std::unique_ptr<Model> made) : model(std::move(made)) {
    materialize(*model, device, {}, seed);
    optimizer = make_optimizer({}, parameters, seed);
  }

  // Returns the loss, the mean over the rows.
  double step(const Tensor& x, const Tensor& targets) {
    for (Parameter* parameter : parameters) parameter->zero_gradient();
    Step step;
    step.targets = targets;
    step.global_targets = rows;
    const double sum = forward_backward(*model, x, std::move(step));
    optimizer->step(/*lr=*/0.01, /*gradient_scale=*/1);
    return sum / rows;
  }

  std::unique_ptr<Model> model;
  std::vector<Parameter*> parameters = parameters_of(*model);
  std::unique_ptr<Optimizer> optimizer;
};

// The largest difference between a rank's gradients and the same elements of the whole ones, relative to the largest.
double difference(const Training& part, const Training& whole) {
  double largest = 0, worst = 0;
  for (size_t i = 0; i < part.parameters.size(); ++i) {
    const auto own = part.parameters[i]->gradient.to_vector<float>(),
               all = whole.parameters[i]->gradient.to_vector<float>();
    for (const Piece& piece : part.parameters[i]->placement.pieces(part.parameters[i]->shape)) {
      for (int64_t k = 0; k < piece.length; ++k) {
        const double reference = all[piece.global_offset + k];
        worst = std::max(worst, std::abs(own[piece.local_offset + k] - reference));
        largest = std::max(largest, std::abs(reference));
      }
    }
  }
  return worst / largest;
}

// Features and a class of each row, the same on every rank.
struct Data {
  Data(const DeviceHandle& device, int64_t step) : x(Tensor::empty(device, {rows, config.in}, Dtype::f32)) {
    ops::fill_random_(x, {.kind = ops::Distribution::Kind::uniform, .width = 1}, hash_key(seed, "x"), step * x.size());
    std::vector<int32_t> classes(rows);
    RandomStream random(hash_key(seed, "targets"), static_cast<uint64_t>(step));
    for (int32_t& target : classes) target = static_cast<int32_t>(random.below(config.classes));
    targets = Tensor::from(device, {rows}, classes);
  }
  Tensor x, targets;
};

// Two sums a step: of the scores in the forward, of the input's gradient in the backward.
bool report(const Group& tp, double worst) {
  const int64_t predicted = steps * (tp.all_reduce_volume(rows * config.classes, Dtype::f32).bytes +
                                     tp.all_reduce_volume(rows * config.in, Dtype::f32).bytes);
  const TrafficEntry sent = tp.world().traffic().entry("tp", Operation::all_reduce);
  const bool is_right = control::all_true(tp, worst < 1e-5 && sent.bytes == predicted);
  if (on_first_rank()) {
    fmt::print("all_reduce: {} calls, {} B sent, {} B predicted\n", sent.calls, sent.bytes, predicted);
    fmt::print("{}: gradients and losses differ from the serial ones by at most {:.1e} (bound 1e-5)\n",
               is_right ? "PASSED" : "FAILED", worst);
  }
  return is_right;
}

int run(int argc, char** argv) {
  Options command_line("05/mlp", "The smallest tensor parallelism: a two-layer MLP over all ranks.");
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  World world({.device = make_cpu_device()}, collectives::ours());
  const Mesh mesh(world, {{"tp", 0}});

  auto model = make_mlp(config);
  const auto tensor_parallel = parallelize(*model, mesh["tp"], mlp_plan());
  Training part(world.device(), std::move(model)), whole(world.device(), make_mlp(config));

  double worst = 0;
  for (int64_t step = 0; step < steps; ++step) {
    const Data data(world.device(), step);
    const double loss = part.step(data.x, data.targets), serial = whole.step(data.x, data.targets);
    worst = std::max({worst, difference(part, whole), std::abs(loss - serial)});
    if (on_first_rank()) fmt::print("step {}   loss {:.6f}   serial {:.6f}\n", step, loss, serial);
  }
  return report(mesh["tp"], worst) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
