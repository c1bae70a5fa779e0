// The layer of a mixture of experts: what it makes of its experts, and what it learns.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "common/nn/feed_forward.h"
#include "common/nn/llama.h"
#include "common/nn/model.h"
#include "common/nn/replace.h"
#include "tests/support/compare.h"
#include "tests/support/derivative.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

ops::Distribution normal(double width) { return {.kind = ops::Distribution::Kind::normal, .width = width}; }

constexpr int64_t length = 6, samples = 2, dim = 16;
const int64_t rows = length * samples;

struct MixtureParts {
  std::unique_ptr<Layer> layer;
  TopKRouter* router;
  GroupedExperts* experts;
};

MixtureParts make_mixture(const DeviceHandle& device, const MoeConfig& moe, uint64_t seed = 5) {
  auto router = std::make_unique<TopKRouter>(moe, dim, 0, 1, normal(0.3));
  auto experts = std::make_unique<GroupedExperts>(moe.experts, dim, 24, normal(0.3), normal(0.3));
  MixtureParts parts{nullptr, router.get(), experts.get()};
  std::unique_ptr<Layer> shared;
  if (moe.shared_experts > 0) shared = std::make_unique<FeedForward>(dim, 24, normal(0.3), normal(0.3));
  parts.layer = std::make_unique<MixtureOfExperts>(moe, 0, std::move(router), std::move(experts), std::move(shared));
  materialize(*parts.layer, device, {}, seed);
  for_each_parameter(*parts.layer, [&](const std::string& path, Parameter& parameter) { parameter.name = path; });
  for (Parameter* parameter : parameters_of(*parts.layer)) {
    parameter->initialise(parameter->value, seed);  // by their names now
    parameter->zero_gradient();
  }
  return parts;
}

Step make_step(RoutingRecord* routing = nullptr, const RoutingRecord* replay = nullptr) {
  Step step;
  step.rows_per_sample = length;
  step.first_sample = 3;
  step.global_targets = 2 * rows;  // the other half elsewhere
  step.routing = routing;
  step.replay = replay;
  return step;
}

std::vector<MoeConfig> layer_configs() {
  std::vector<MoeConfig> configs;
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::topk_softmax, RouterKind::sigmoid}) {
    for (const int64_t top_k : {1, 2, 4}) {
      for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::batch}) {
        configs.push_back({.experts = 4,
                           .top_k = top_k,
                           .router = kind,
                           .balance_scope = scope,
                           .balance_coefficient = 0.3,
                           .z_loss_coefficient = 0.2});
      }
    }
    configs.push_back({.experts = 4, .capacity_factor = 0.6, .router = kind, .balance_coefficient = 0.3});
    configs.push_back({.experts = 4, .router = kind, .balance = Balance::bias, .shared_experts = 1});
  }
  return configs;
}

// Of a fixed routing, because a choice that changes has no derivative. The auxiliary losses are part of what is
// differentiated: twice the scale of a step's loss shows that they follow it.
TEST(MixtureOfExperts, BackwardIsTheDerivativeOfOutputAndAuxiliaryLosses) {
  const DeviceHandle device = make_test_device();
  for (const MoeConfig& moe : layer_configs()) {
    const MixtureParts parts = make_mixture(device, moe);
    const Tensor x = random_tensor(device, {rows, dim}, Dtype::f32, 1);
    const Tensor weights = random_tensor(device, {rows, dim}, Dtype::f32, 2);
    RoutingRecord chosen;
    chosen.keeps_choices = true;
    const auto pass = [&](RoutingRecord& record, const RoutingRecord* replay, Tensor& dx) {
      Step step = make_step(&record, replay);
      step.loss_scale = 2;
      Saved saved(step);
      const double value = projection(parts.layer->forward(x, saved), weights);
      for (Parameter* parameter : parameters_of(*parts.layer)) parameter->zero_gradient();
      dx = parts.layer->backward(weights, saved);
      EXPECT_TRUE(saved.empty());
      const double balance = moe.balance == Balance::auxiliary ? moe.balance_coefficient * record.balance_loss() : 0;
      return value + 2 * (balance + moe.z_loss_coefficient * record.z_loss());
    };
    Tensor dx, unused;
    pass(chosen, nullptr, dx);
    std::vector<Tensor> gradients;
    for (const Parameter* parameter : parameters_of(*parts.layer)) gradients.push_back(copy_of(parameter->gradient));
    const auto value = [&] {
      RoutingRecord record;
      return pass(record, &chosen, unused);
    };
    const std::string what = fmt::format("router {}, top-k {}, scope {}", static_cast<int>(moe.router), moe.top_k,
                                         static_cast<int>(moe.balance_scope));
    expect_derivative(x, dx, value, what + ", dx");
    for (size_t i = 0; i < gradients.size(); ++i) {
      const Parameter& parameter = *parameters_of(*parts.layer)[i];
      expect_derivative(parameter.value, gradients[i], value, what + ", " + parameter.name);
    }
  }
}

// Token by token, each expert a plain feed-forward.
std::vector<double> plain_mixture(const MixtureParts& parts, const Tensor& x, const Routing& routing,
                                  const DispatchPlan& plan) {
  std::vector<double> sum(static_cast<size_t>(x.size()), 0);
  const auto weight = [&](const Parameter& of, int64_t expert) {
    const Shape one = {of.shape[1], of.shape[2]};
    return of.value.slice(expert * elements(one), one);
  };
  for (size_t choice = 0; choice < routing.chosen.size(); ++choice) {
    if (plan.row_of_choice[choice] < 0) continue;
    const int64_t token = static_cast<int64_t>(choice) / routing.top_k, expert = routing.chosen[choice];
    const Tensor row = x.rows(token, token + 1);
    const auto times = [&](const Tensor& of, const Parameter& by) {
      return ops::matmul(of, weight(by, expert), {.transpose_b = true});
    };
    const auto y =
        doubles(times(ops::swiglu(times(row, parts.experts->w1), times(row, parts.experts->w3)), parts.experts->w2));
    for (size_t i = 0; i < y.size(); ++i) sum[static_cast<size_t>(token * dim) + i] += routing.gates[choice] * y[i];
  }
  return sum;
}

TEST(MixtureOfExperts, AddsUpWhatTheChosenExpertsGive) {
  const DeviceHandle device = make_test_device();
  for (const std::optional<double> factor : {std::optional<double>(), std::optional(0.5), std::optional(0.01)}) {
    const MoeConfig moe{.experts = 4, .capacity_factor = factor, .drop_policy = DropPolicy::probs};
    const MixtureParts parts = make_mixture(device, moe);
    const Tensor x = random_tensor(device, {rows, dim}, Dtype::f32, 1);
    Step step = make_step();
    step.training = false;
    Saved saved(step), again(step);
    const Tensor y = parts.layer->forward(x, saved);
    const Routing routing = parts.router->forward(x, again);
    const DispatchPlan plan = make_dispatch_plan(routing);
    expect_near(y, plain_mixture(parts, x, routing, plan), 1e-5);
  }
}

// Experts that nobody visits, and one that all do, and none that any may visit: everything stays finite, and the
// weights that were not used have the gradient zero.
TEST(MixtureOfExperts, HoldsWhenExpertsAreEmpty) {
  const DeviceHandle device = make_test_device();
  for (const bool none_fits : {false, true}) {
    const MoeConfig moe{.experts = 4, .top_k = 1, .balance_coefficient = 0.1};
    const MixtureParts parts = make_mixture(device, moe);
    RoutingRecord to_one, record;
    to_one.keeps_choices = true;
    for (int64_t sample = 3; sample < 5; ++sample) {
      to_one.choices[{0, sample}] = {std::vector<int32_t>(length, 2), std::vector<int32_t>(length, 0)};
    }
    const Tensor x = random_tensor(device, {none_fits ? 0 : rows, dim}, Dtype::f32, 1);
    Saved saved(make_step(&record, none_fits ? nullptr : &to_one));
    const Tensor y = parts.layer->forward(x, saved);
    for (Parameter* parameter : parameters_of(*parts.layer)) ops::fill_(parameter->gradient, 1e6f);
    const Tensor dx = parts.layer->backward(y, saved);
    EXPECT_EQ(dx.shape(), x.shape());
    for (const double value : doubles(dx)) ASSERT_TRUE(std::isfinite(value));
    for (const Parameter* parameter : {&parts.experts->w1, &parts.experts->w2, &parts.experts->w3}) {
      const int64_t each = parameter->size() / 4;
      for (int64_t expert = 0; expert < 4; ++expert) {
        const bool used = expert == 2 && !none_fits;
        EXPECT_EQ(ops::absolute_max(parameter->gradient.slice(expert * each, {each})) > 0, used) << expert;
      }
    }
  }
}

// A mixture that has been through one forward, and what it chose in it.
struct Recorded {
  explicit Recorded(const MoeConfig& moe)
      : device(make_test_device()),
        parts(make_mixture(device, moe)),
        x(random_tensor(device, {rows, dim}, Dtype::f32, 1)) {
    own.keeps_choices = true;
    Saved saved(make_step(&own));
    y = parts.layer->forward(x, saved);
  }
  // The same forward by the choices in `own`, recorded in `replayed`.
  Tensor replay() {
    Saved saved(make_step(&replayed, &own));
    return parts.layer->forward(x, saved);
  }

  DeviceHandle device;
  MixtureParts parts;
  Tensor x, y;
  RoutingRecord own, replayed;
};

TEST(MixtureOfExperts, TakesTheChoicesItIsGivenAndListsThoseItWouldNotHaveMade) {
  Recorded recorded({.experts = 4, .top_k = 2, .router = RouterKind::topk_softmax});
  auto& [device, parts, x, y, own, replayed] = recorded;
  EXPECT_EQ(own.choices.size(), 2u);
  EXPECT_TRUE(same_bits(recorded.replay(), y));
  EXPECT_TRUE(replayed.differences.empty());

  // The second choice of sample 4, position 1 becomes the worst of the four.
  const auto logits =
      doubles(ops::matmul(x.rows(length + 1, length + 2), parts.router->weight.value, {.transpose_b = true}));
  const auto worst = std::min_element(logits.begin(), logits.end());
  const double left_out = logits[static_cast<size_t>(own.choices.at({0, 4}).chosen[3])];
  own.choices.at({0, 4}).chosen[3] = static_cast<int32_t>(worst - logits.begin());
  EXPECT_FALSE(same_bits(recorded.replay(), y));
  ASSERT_EQ(replayed.differences.size(), 1u);
  const auto& [layer, sample, position, gap] = replayed.differences.front();
  EXPECT_EQ((std::array{layer, sample, position}), (std::array<int64_t, 3>{0, 4, 1}));
  EXPECT_NEAR(gap, left_out - *worst, 1e-6);
}

TEST(MixtureOfExperts, DropsWhomItIsToldToAndListsThoseItWouldHaveTaken) {
  Recorded recorded({.experts = 4, .top_k = 1, .capacity_factor = 1, .drop_policy = DropPolicy::probs});
  auto& [device, parts, x, y, own, replayed] = recorded;

  // Two choices of one expert, one taken and one not, change places.
  auto& [chosen, places] = own.choices.at({0, 4});
  const auto dropped = std::find(places.begin(), places.end(), -1) - places.begin();
  ASSERT_LT(dropped, length);
  size_t taken = 0;
  while (chosen[taken] != chosen[static_cast<size_t>(dropped)] || places[taken] < 0) ++taken;
  std::swap(places[taken], places[static_cast<size_t>(dropped)]);
  EXPECT_FALSE(same_bits(recorded.replay(), y));
  ASSERT_EQ(replayed.differences.size(), 1u);
  const auto& [layer, sample, position, gap] = replayed.differences.front();
  EXPECT_EQ((std::array{layer, sample, position}), (std::array<int64_t, 3>{0, 4, static_cast<int64_t>(taken)}));
  EXPECT_GT(gap, 0);
  EXPECT_LT(gap, 1);
}

TEST(MixtureOfExperts, ARecomputationCountsNothingTwice) {
  const DeviceHandle device = make_test_device();
  for (const std::set<SavedOperation>& save : {std::set<SavedOperation>{}, {SavedOperation::matmul}}) {
    for (const int64_t shared : {0, 1}) {
      const MoeConfig moe{.experts = 4,
                          .capacity_factor = 0.7,
                          .balance_scope = BalanceScope::batch,
                          .balance_coefficient = 0.3,
                          .z_loss_coefficient = 0.1,
                          .shared_experts = shared};
      const MixtureParts parts = make_mixture(device, moe);
      const Tensor x = random_tensor(device, {rows, dim}, Dtype::f32, 1);
      const auto pass = [&](RoutingRecord& record, bool checkpoint) {
        Saved saved(make_step(&record));
        Tensor y;
        const auto forward = [&] { y = parts.layer->forward(x, saved); };
        checkpoint ? saved.checkpoint(x, save, forward) : forward();
        if (checkpoint) saved.recompute([&](const Tensor& again) { (void)parts.layer->forward(again, saved); });
        for (Parameter* parameter : parameters_of(*parts.layer)) parameter->zero_gradient();
        std::vector<Tensor> results = {y, parts.layer->backward(y, saved)};
        for (const Parameter* parameter : parameters_of(*parts.layer)) results.push_back(copy_of(parameter->gradient));
        EXPECT_TRUE(saved.empty());
        return results;
      };
      RoutingRecord plain, again;
      const auto expected = pass(plain, false), found = pass(again, true);
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(same_bits(found[i], expected[i])) << i;
      EXPECT_EQ(again.layers[0].load, plain.layers[0].load);
      EXPECT_EQ(again.layers[0].dropped, plain.layers[0].dropped);
      EXPECT_GT(plain.dropped_share(), 0);
      EXPECT_EQ(again.balance_loss(), plain.balance_loss());
      EXPECT_EQ(again.z_loss(), plain.z_loss());
    }
  }
}

// Even loads cost k, the least there is; all tokens with one expert cost as many times more as there are experts.
TEST(MixtureOfExperts, TheBalancingLossIsLeastWhereLoadsAreEven) {
  const DeviceHandle device = make_test_device();
  const MoeConfig moe{.experts = 4, .top_k = 2};
  const MixtureParts parts = make_mixture(device, moe);
  ops::fill_(parts.router->weight.value, 0);  // all scores alike: experts 0 and 1 take everything
  RoutingRecord record;
  Step step = make_step(&record);
  step.global_targets = rows;
  Saved saved(step);
  const Tensor x = random_tensor(device, {rows, dim}, Dtype::f32, 1);
  parts.layer->backward(parts.layer->forward(x, saved), saved);
  for (int64_t expert = 0; expert < 4; ++expert) EXPECT_EQ(record.layers[0].load.at(expert), expert < 2 ? rows : 0);
  EXPECT_NEAR(record.balance_loss(), 2, 1e-6);  // f = 1, 1, 0, 0 and P = 1/4
  EXPECT_NEAR(record.z_loss(), std::pow(std::log(4.0), 2), 1e-6);
}

// ---- in a model ----------------------------------------------------------------------------------------------------

LlamaConfig small_llama(const MoeConfig& moe) {
  return {.dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 24, .vocab = 11, .moe = moe};
}

TEST(MoeLlama, CountsItsParametersAndNamesThem) {
  const LlamaConfig config = small_llama({.experts = 4, .balance = Balance::bias, .shared_experts = 2});
  const auto model = make_llama(config);
  EXPECT_EQ(parameter_count(*model), llama_parameters(config));
  std::vector<std::string> names, buffers;
  for (const Parameter* parameter : parameters_of(*model)) names.push_back(parameter->name);
  for_each_buffer(*model, [&](const std::string&, Buffer& buffer) { buffers.push_back(buffer.name); });
  for (const char* name : {"router.weight", "experts.w1", "experts.w3", "experts.w2", "shared_experts.w1.weight"}) {
    EXPECT_EQ(std::count(names.begin(), names.end(), fmt::format("layers.1.feed_forward.{}", name)), 1) << name;
  }
  EXPECT_EQ(buffers,
            (std::vector<std::string>{"layers.0.feed_forward.router.bias", "layers.1.feed_forward.router.bias"}));
  EXPECT_EQ(for_each_experts(*model, "layers.*.feed_forward.experts", [](const auto&, auto&) {}), 2);
}

// On paper: loads are taken to be even, capacity or not.
TEST(MoeLlama, RunsOnMeta) {
  const DeviceHandle device = make_meta_device();
  for (const std::optional<double> factor : {std::optional<double>(), std::optional(0.5)}) {
    const LlamaConfig config = small_llama({.experts = 3, .capacity_factor = factor, .shared_experts = 1});
    const auto model = make_llama(config);
    materialize(*model, device, {}, 1);
    double flops = 0;
    device->after_kernel = [&](const KernelCost& cost) {
      const std::string_view name = cost.name;
      if (name == "matmul" || name == "grouped_matmul") flops += cost.flops;
    };
    const Tensor tokens = Tensor::empty(device, {rows}, Dtype::i32);
    Step step = make_step();
    step.positions = Tensor::empty(device, {length}, Dtype::i32);
    step.targets = tokens;
    for (Parameter* parameter : parameters_of(*model)) parameter->zero_gradient();
    forward_backward(*model, tokens, step);
    LlamaConfig half = config;  // half of the choices: as if each token made one
    half.moe.top_k = factor ? 1 : 2;
    EXPECT_EQ(flops, llama_flops_per_token(half, 0) * static_cast<double>(rows));
    device->after_kernel = nullptr;
  }
}

}  // namespace
}  // namespace ninefold
