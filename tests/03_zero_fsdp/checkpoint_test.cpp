// Activation checkpointing: the bits of losses and gradients stay, memory and FLOPs are as their formulas say, and the
// traffic of sharding does not change.
#include "03_zero_fsdp/checkpoint_activations.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "01_collectives/collectives.h"
#include "03_zero_fsdp/sharding.h"
#include "common/nn/classifiers.h"
#include "common/nn/loss.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

using enum SavedOperation;

// What a user can ask for, and a few combinations of operations that only tests ask for.
const std::vector<Recomputation> modes = {{.every = 1, .save = {}},
                                          {.every = 2, .save = {}},
                                          {.every = 3, .save = {}},
                                          {.every = 1, .save = {matmul}},
                                          {.every = 1, .save = {attention}},
                                          {.every = 1, .save = {matmul, attention, reduce_scatter, max}},
                                          {.every = 2, .save = {matmul, attention}},
                                          {.every = 1, .save = {convolution, dropout}},
                                          {.every = 1, .save = {max}}};

std::vector<Recomputation> modes_of(int64_t layers) {
  std::vector<Recomputation> found = modes;
  std::erase_if(found, [&](const Recomputation& mode) { return mode.every > layers; });
  return found;
}

std::string to_string(const Recomputation& mode) {
  std::string text = fmt::format("every {}", mode.every);
  for (const auto& [operation, name] : saved_operations) {
    if (mode.saves(operation)) text += fmt::format(" {}", name);
  }
  return text;
}

// One step of two micro-batches on this rank alone.
struct Result {
  std::vector<double> losses;
  Elements gradients;
  int64_t activations;  // peak bytes
  double flops;         // of matmuls, attention and convolutions
};

using ModelMaker = std::function<std::unique_ptr<Model>()>;

Result run(const Job& job, const ModelMaker& make, const std::string& pattern, const Recomputation& recomputation) {
  TrainOptions options = job.options;
  options.resolve(1);
  const DeviceHandle device = make_cpu_device();
  const auto task = task_of(job);
  const auto model = make();
  checkpoint_activations(*model, pattern, recomputation);
  materialize(*model, device, options.precision(), options.seed);
  Result result{};
  device->after_kernel = [&](const KernelCost& cost) {
    for (const std::string_view name : {"matmul", "attention", "convolution"}) {
      if (std::string_view(cost.name).starts_with(name)) result.flops += cost.flops;
    }
  };
  const auto parameters = parameters_of(*model);
  GlobalBatch batch{.step = 3, .indices = std::vector<int64_t>(static_cast<size_t>(options.batch))};
  std::iota(batch.indices.begin(), batch.indices.end(), 0);
  for (int step = 0; step < 2; ++step) {
    result.losses.push_back(
        accumulate_gradients(*model, parameters, *task, device, micro_batches(batch, *task, options, 0, 1)));
  }
  result.flops /= 2;
  result.activations = device->ledger().peak(MemoryKind::activations);
  result.gradients = elements_of(parameters, &Parameter::Owned::gradient);
  return result;
}

void expect_the_same_bits(const Job& job, const ModelMaker& make, const std::string& pattern, int64_t layers) {
  const Result plain = run(job, make, pattern, {});
  for (const Recomputation& mode : modes_of(layers)) {
    const Result again = run(job, make, pattern, mode);
    EXPECT_EQ(again.losses, plain.losses) << to_string(mode);
    EXPECT_TRUE(same_bits(again.gradients, plain.gradients)) << to_string(mode);
  }
}

// Two micro-batches of this type.
Job of_type(Job job, Dtype dtype) {
  job.options.dtype = dtype;
  job.options.micro_batches = 2;
  job.task = task_of(job);
  return job;
}

class Checkpoint : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, Checkpoint, testing::Values(Dtype::f32, Dtype::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(Checkpoint, LlamaKeepsItsBits) {
  Job job = small_llama();
  job.options.llama.layers = 3;
  job = of_type(job, GetParam());
  for (const char* pattern : {"layers.*", "layers.*.attention", "layers.*.feed_forward", "layers.*.feed_forward.w?"}) {
    expect_the_same_bits(
        job, [&] { return job.task->make_model(); }, pattern, 3);
  }
}

// The children of the MNIST CNN as layers of several, the first of `cut` children, the second of the others.
std::unique_ptr<Model> mnist_cnn_in_two(int cut) {
  struct Mover : Visitor {
    std::unique_ptr<Model> parts[2] = {std::make_unique<Model>(nullptr), std::make_unique<Model>(nullptr)};
    int left = 0;
    void slot(std::string_view name, std::unique_ptr<Layer>& child) override {
      parts[left-- > 0 ? 0 : 1]->add(std::string(name), std::move(child));
    }
  } mover;
  mover.left = cut;
  make_mnist_cnn()->visit(mover);
  auto model = std::make_unique<Model>(std::make_unique<LogSoftmaxNllLoss>());
  model->add("layers.0", std::move(mover.parts[0]));
  model->add("layers.1", std::move(mover.parts[1]));
  model->name_parameters();
  return model;
}

TEST_P(Checkpoint, MnistCnnWithDropoutKeepsItsBits) {
  Job job = of_type(small_mnist_cnn(), GetParam());
  job.options.batch = 4;
  for (int cut = 1; cut <= 10; ++cut) {
    SCOPED_TRACE(cut);
    expect_the_same_bits(
        job, [&] { return mnist_cnn_in_two(cut); }, "layers.*", 2);
  }
}

TEST_P(Checkpoint, ActivationsAndFlopsAreThoseOfTheFormulas) {
  const LlamaConfig shapes[] = {{.dim = 64, .layers = 6, .heads = 4, .kv_heads = 2, .ffn = 176, .vocab = 256},
                                {.dim = 64, .layers = 2, .heads = 2, .kv_heads = 1, .ffn = 128, .vocab = 1024},
                                {.dim = 96, .layers = 5, .heads = 6, .kv_heads = 6, .ffn = 96, .vocab = 256}};
  for (const LlamaConfig& shape : shapes) {
    Job job = small_llama();
    job.options.llama = shape;
    job.options.length = 64;
    job.options.batch = 4;
    job = of_type(job, GetParam());
    std::vector<Recomputation> all = modes_of(shape.layers);
    all.emplace_back();
    for (const Recomputation& mode : all) {
      const Result found = run(
          job, [&] { return job.task->make_model(); }, "layers.*", mode);
      const int64_t predicted = job.task->activation_bytes(2, job.options.precision(), mode);
      EXPECT_EQ(found.activations, predicted) << to_string(mode) << ", ffn " << shape.ffn;
      EXPECT_EQ(found.flops, 4 * job.task->executed_flops_per_sample(mode)) << to_string(mode);
    }
  }
}

// Tells of each forward whether it was a recomputation.
struct Witness : Layer {
  explicit Witness(std::vector<bool>& seen) : seen(seen) {}
  Tensor forward(const Tensor& x, Saved& saved) override {
    seen.push_back(saved.step().recomputing);
    saved.push(x);
    return ops::add(x, x);
  }
  Tensor backward(const Tensor& dy, Saved& saved) override {
    static_cast<void>(saved.pop());
    return ops::add(dy, dy);
  }
  std::vector<bool>& seen;
};

TEST(CheckpointedLayer, SaysWhetherAForwardIsRunAgainAndOnlyWhereABackwardFollows) {
  std::vector<bool> seen;
  Model model(std::make_unique<CrossEntropyLoss>());
  model.add("layers.0", std::make_unique<Witness>(seen));
  checkpoint_activations(model, "layers.*", {.every = 1, .save = {}});
  const DeviceHandle device = make_cpu_device();
  const Tensor x = Tensor::from(device, {1, 2}, std::vector<float>{1, 2});
  Step step;
  step.targets = Tensor::from(device, {1}, std::vector<int32_t>{0});
  evaluate(model, x, step);
  EXPECT_EQ(seen, std::vector<bool>({false}));
  forward_backward(model, x, step);
  EXPECT_EQ(seen, std::vector<bool>({false, false, true}));
}

// What the user is told of wrong options.
std::string refusal(const std::string& recompute, const std::string& save) {
  try {
    RecomputationOptions options;
    options.recompute = recompute;
    options.save = save;
    const auto model = make_llama({.dim = 8, .layers = 4, .heads = 1, .kv_heads = 1, .ffn = 8, .vocab = 8});
    checkpoint_activations(*model, "layers.*", options.resolve());
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(RecomputationOptions, RefusesWhatItDoesNotKnowAndNamesWhatItDoes) {
  EXPECT_EQ(refusal("none", ""), "");
  EXPECT_EQ(refusal("full", ""), "");
  EXPECT_EQ(refusal("every:4", ""), "");
  EXPECT_EQ(refusal("selective", "matmul,max"), "");
  for (const char* every : {"every:0", "every:-1", "every:", "every:2x"}) {
    EXPECT_EQ(refusal(every, ""),
              fmt::format("--recompute {} needs a number of layers from 1, such as every:2", every));
  }
  EXPECT_EQ(refusal("every:5", ""),
            "every:5 chooses none of the 4 layers that match layers.*; the number may be at most theirs");
  EXPECT_EQ(refusal("often", ""), "--recompute often is none of none, full, selective, every:N");
  EXPECT_EQ(refusal("full", "matmul"), "--save matmul needs --recompute selective, not full");
  EXPECT_EQ(refusal("selective", "matmul,softmax"),
            "--save knows no operation softmax; it takes attention, convolution, dropout, matmul, max, reduce_scatter");
}

}  // namespace
}  // namespace ninefold
