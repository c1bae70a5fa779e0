// Every layer's backward against finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>
#include <numeric>

#include "common/nn/embedding.h"
#include "common/nn/feed_forward.h"
#include "common/nn/linear.h"
#include "common/nn/llama.h"
#include "common/nn/loss.h"
#include "common/nn/vision.h"
#include "tests/support/derivative.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

constexpr int64_t length = 6, samples = 2;

struct Case {
  std::string name;
  std::function<std::unique_ptr<Layer>()> make;
  Shape input;
  float step = 4e-3f;  // of the finite differences; small where the function has kinks and is linear between them
};

ops::Distribution normal(double width) { return {.kind = ops::Distribution::Kind::normal, .width = width}; }

std::unique_ptr<Layer> make_mixture(const MoeConfig& moe) {
  return std::make_unique<MixtureOfExperts>(
      moe, 0, std::make_unique<TopKRouter>(moe, 16, 0, 1, normal(0.3)),
      std::make_unique<GroupedExperts>(moe.experts, 16, 24, normal(0.3), normal(0.3)),
      std::make_unique<FeedForward>(16, 24, normal(0.3), normal(0.3)));
}

std::vector<Case> cases() {
  const AttentionConfig attention{.dim = 16,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .rope_frequencies = ops::rope_frequencies(4, 10000),
                                  .in_initial = normal(0.3),
                                  .out_initial = normal(0.3)};
  const LlamaConfig llama{.dim = 16, .layers = 1, .heads = 4, .kv_heads = 2, .ffn = 24, .vocab = 11};
  const Shape tokens{samples * length, 16}, images{samples, 2, 8, 8};
  return {
      {"linear", [] { return std::make_unique<Linear>(16, 9, normal(0.3)); }, tokens},
      {"linear_bias", [] { return std::make_unique<Linear>(16, 9, normal(0.3), normal(0.3)); }, tokens},
      {"rms_norm", [] { return std::make_unique<RmsNorm>(16, 1e-5f); }, tokens},
      {"attention", [=] { return std::make_unique<Attention>(attention); }, tokens},
      {"feed_forward", [] { return std::make_unique<FeedForward>(16, 24, normal(0.3), normal(0.3)); }, tokens},
      // All experts are chosen: a choice that changes within the step has no derivative.
      {"mixture",
       [=] { return make_mixture({.experts = 3, .top_k = 3, .balance = Balance::none, .shared_experts = 1}); }, tokens},
      {"block", [=] { return std::make_unique<TransformerBlock>(llama, 0, normal(0.3), normal(0.3)); }, tokens},
      {"convolution", [] { return std::make_unique<Convolution>(2, 3, 3); }, images},
      {"max_pool", [] { return std::make_unique<MaxPool>(); }, images, 1e-4f},
      {"relu", [] { return std::make_unique<Relu>(); }, tokens, 1e-4f},
      {"flatten", [] { return std::make_unique<Flatten>(); }, images},
      {"dropout", [] { return std::make_unique<Dropout>(0.25f, 0); }, tokens},
  };
}

Step make_step(const DeviceHandle& device) {
  std::vector<int32_t> positions(length);
  std::iota(positions.begin(), positions.end(), 0);
  Step step;
  step.rows_per_sample = length;
  step.positions = Tensor::from(device, {length}, positions);
  return step;
}

class LayerTest : public testing::TestWithParam<Case> {};

TEST_P(LayerTest, BackwardIsTheDerivativeOfForward) {
  const DeviceHandle device = make_test_device();
  const auto layer = GetParam().make();
  materialize(*layer, device, {}, 5);
  const Tensor x = random_tensor(device, GetParam().input, Dtype::f32, 1);
  const auto forward = [&](Saved& saved) { return layer->forward(x, saved); };

  Saved saved(make_step(device));
  const Tensor y = forward(saved);
  const Tensor weights = random_tensor(device, y.shape(), Dtype::f32, 2);
  for (Parameter* parameter : parameters_of(*layer)) parameter->zero_gradient();
  const Tensor dx = layer->backward(weights, saved);
  EXPECT_TRUE(saved.empty());

  const auto value = [&] {
    Saved again(make_step(device));
    return projection(forward(again), weights);
  };
  expect_derivative(x, dx, value, "dx", GetParam().step);
  for (Parameter* parameter : parameters_of(*layer)) {
    expect_derivative(parameter->value, parameter->gradient, value, to_string(parameter->shape));
  }
}

TEST_P(LayerTest, AddingFormsEqualThePlainOnes) {
  const DeviceHandle device = make_test_device();
  const auto layer = GetParam().make();
  materialize(*layer, device, {}, 5);
  const Tensor x = random_tensor(device, GetParam().input, Dtype::f32, 1);
  Saved plain(make_step(device)), adding(make_step(device));
  const Tensor y = layer->forward(x, plain);
  const Tensor sum = Tensor::zeros(device, y.shape(), Dtype::f32);
  layer->forward_add(x, adding, sum);
  const Tensor dy = random_tensor(device, y.shape(), Dtype::f32, 2);
  const Tensor dx = layer->backward(dy, plain);
  const Tensor dx_sum = Tensor::zeros(device, dx.shape(), Dtype::f32);
  layer->backward_add(dy, adding, dx_sum);
  const auto near = [](const Tensor& a, const Tensor& b) {
    const auto left = doubles(a), right = doubles(b);
    for (size_t i = 0; i < left.size(); ++i) ASSERT_NEAR(left[i], right[i], 1e-5) << i;
  };
  near(y, sum);
  near(dx, dx_sum);
}

TEST_P(LayerTest, GradientsAddUpOverMicroBatchesAndStartFromZero) {
  const DeviceHandle device = make_test_device();
  const auto layer = GetParam().make();
  materialize(*layer, device, {}, 5);
  const Tensor x = random_tensor(device, GetParam().input, Dtype::f32, 1);
  const auto pass = [&] {
    Saved saved(make_step(device));
    const Tensor y = layer->forward(x, saved);
    (void)layer->backward(random_tensor(device, y.shape(), Dtype::f32, 2), saved);
  };
  for (Parameter* parameter : parameters_of(*layer)) {
    ops::fill_(parameter->gradient, 1e6f);  // what an earlier step left
    parameter->zero_gradient();
  }
  pass();
  std::vector<std::vector<double>> once;
  for (Parameter* parameter : parameters_of(*layer)) once.push_back(doubles(parameter->gradient));
  pass();
  size_t index = 0;
  for (Parameter* parameter : parameters_of(*layer)) {
    const auto twice = doubles(parameter->gradient);
    for (size_t i = 0; i < twice.size(); ++i) {
      ASSERT_NEAR(twice[i], 2 * once[index][i], 1e-5 * std::max(1.0, std::abs(twice[i])));
    }
    ++index;
  }
}

// The halves of a backward, with another micro-batch's forward and first half between them: the same bits.
TEST_P(LayerTest, DeferredWeightGradientsAreTheSame) {
  const DeviceHandle device = make_test_device();
  const auto layer = GetParam().make();
  materialize(*layer, device, {}, 5);
  const auto parameters = parameters_of(*layer);
  const auto run = [&](bool deferred) {
    for (Parameter* parameter : parameters) parameter->zero_gradient();
    std::deque<Saved> saved;
    std::vector<std::vector<double>> results;
    for (const uint64_t micro_batch : {1, 2}) {
      Saved& own = saved.emplace_back(make_step(device));
      const Tensor x = random_tensor(device, GetParam().input, Dtype::f32, micro_batch);
      const Tensor y = layer->forward(x, own);
      if (deferred) own.defer_weight_gradients();
      results.push_back(doubles(layer->backward(random_tensor(device, y.shape(), Dtype::f32, 3), own)));
    }
    for (Saved& one : saved) {
      one.compute_weight_gradients();
      EXPECT_TRUE(one.empty());
    }
    for (const Parameter* parameter : parameters) results.push_back(doubles(parameter->gradient));
    return results;
  };
  EXPECT_EQ(run(true), run(false));
}

INSTANTIATE_TEST_SUITE_P(Layers, LayerTest, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(EmbeddingLayer, BackwardIsTheDerivativeOfForward) {
  const DeviceHandle device = make_test_device();
  Embedding layer(7, 5, normal(1));
  materialize(layer, device, {}, 5);
  const Tensor tokens = Tensor::from<int32_t>(device, {4}, {3, 0, 3, 6});
  Saved saved(make_step(device));
  const Tensor weights = random_tensor(device, layer.forward(tokens, saved).shape(), Dtype::f32, 2);
  layer.weight.zero_gradient();
  EXPECT_FALSE(layer.backward(weights, saved).defined());
  expect_derivative(
      layer.weight.value, layer.weight.gradient,
      [&] {
        Saved again(make_step(device));
        return projection(layer.forward(tokens, again), weights);
      },
      "table");
}

template <typename LossType>
void check_loss() {
  const DeviceHandle device = make_test_device();
  LossType loss;
  Step step = make_step(device);
  step.targets = Tensor::from<int32_t>(device, {3}, {1, 0, 4});
  step.global_targets = 6;
  const Tensor scores = random_tensor(device, {3, 5}, Dtype::f32, 3);
  const auto value = [&] {
    Saved saved(step);
    loss.forward(ops::cast(scores, Dtype::f32), saved);
    return ops::sum(saved.step().losses) / 6;
  };
  Saved saved(step);
  loss.forward(ops::cast(scores, Dtype::f32), saved);
  const Tensor gradient = loss.backward(saved);
  EXPECT_TRUE(saved.empty());
  expect_derivative(scores, gradient, value, "scores");
}

TEST(Loss, CrossEntropyBackward) { check_loss<CrossEntropyLoss>(); }
TEST(Loss, LogSoftmaxNllBackward) { check_loss<LogSoftmaxNllLoss>(); }

TEST(Saved, NeverHoldsTheStorageOfAParameter) {
  const DeviceHandle device = make_test_device();
  const auto model = make_llama({.dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 24, .vocab = 11});
  materialize(*model, device, {}, 5);
  Step step = make_step(device);
  const Tensor tokens = Tensor::from(device, {samples * length}, std::vector<int32_t>(samples * length, 3));
  step.targets = tokens;
  Saved saved(step);
  model->loss().forward(model->forward(tokens, saved), saved);
  int kept = 0;
  while (!saved.empty()) {
    const Tensor tensor = saved.pop();
    ++kept;
    for (const Parameter* parameter : parameters_of(*model)) {
      EXPECT_FALSE(tensor.shares_storage_with(parameter->value)) << parameter->name;
    }
  }
  EXPECT_GT(kept, 20);
}

TEST(Saved, LeavesTheGradientsOfLinearLayersForLater) {
  const DeviceHandle device = make_test_device();
  Linear layer(4, 3, normal(1), normal(1));
  materialize(layer, device, {}, 5);
  int complete = 0;
  for (Parameter* parameter : parameters_of(layer)) {
    parameter->zero_gradient();
    parameter->on_gradient_complete = [&] { ++complete; };
  }
  Saved saved(make_step(device));
  const Tensor y = layer.forward(random_tensor(device, {2, 4}, Dtype::f32, 1), saved);
  saved.defer_weight_gradients();
  layer.backward(y, saved);
  EXPECT_EQ(complete, 0);
  EXPECT_FALSE(saved.empty());
  saved.compute_weight_gradients();
  EXPECT_EQ(complete, 2);
  EXPECT_TRUE(saved.empty());
}

TEST(Saved, RefusesToPopMoreThanWasPushed) {
  Saved saved((Step()));
  EXPECT_THROW(saved.pop(), Error);
}

}  // namespace
}  // namespace ninefold
