// Mixtures of experts: who goes where, who is dropped, what is learned from it.
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

using Counts = std::vector<int64_t>;
using Indices = std::vector<int32_t>;

ops::Distribution normal(double width) { return {.kind = ops::Distribution::Kind::normal, .width = width}; }

// ---- plans ---------------------------------------------------------------------------------------------------------

TEST(TopK, PrefersTheLowerOfEquals) {
  EXPECT_EQ(top_k_experts({1, 3, 3, 2}, 4, 3), (Indices{1, 2, 3}));
  EXPECT_EQ(top_k_experts({0, 0, 0, 0, 0, 0}, 3, 2), (Indices{0, 1, 0, 1}));
  EXPECT_EQ(top_k_experts({-2, -1, -1}, 3, 1), (Indices{1}));
}

// Two sequences of three tokens, two experts of three each.
Routing small_routing() {
  return {.experts = 3,
          .top_k = 2,
          .chosen = {1, 0, 1, 2, 0, 1, 1, 2, 2, 1, 1, 0},
          .gates = {0.6f, 0.4f, 0.9f, 0.1f, 0.7f, 0.3f, 0.5f, 0.5f, 0.8f, 0.2f, 0.8f, 0.2f}};
}

TEST(DispatchPlan, PutsTheRowsOfEachExpertTogetherInOrderOfTokens) {
  const DispatchPlan plan = make_dispatch_plan(small_routing(), 3, std::nullopt, DropPolicy::position);
  EXPECT_EQ(plan.counts, (Counts{3, 6, 3}));
  EXPECT_EQ(plan.dropped, (Counts{0, 0, 0}));
  EXPECT_EQ(plan.token_of_row, (Indices{0, 2, 5, 0, 1, 2, 3, 4, 5, 1, 3, 4}));
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 9, 1, 5, 6, 10, 11, 7, 8, 2}));
  EXPECT_EQ(plan.place_of_choice, (Indices{0, 0, 1, 0, 1, 2, 0, 0, 1, 1, 2, 0}));
}

TEST(DispatchPlan, DropsTheEndOfEachSequenceByPosition) {
  const DispatchPlan plan = make_dispatch_plan(small_routing(), 3, 2, DropPolicy::position);
  EXPECT_EQ(plan.counts, (Counts{3, 4, 3}));
  EXPECT_EQ(plan.dropped, (Counts{0, 2, 0}));
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 7, 1, -1, 5, 8, 9, 6, -1, 2}));
}

TEST(DispatchPlan, DropsTheLowestGatesOfEachSequence) {
  const DispatchPlan plan = make_dispatch_plan(small_routing(), 3, 2, DropPolicy::probs);
  EXPECT_EQ(plan.dropped, (Counts{0, 2, 0}));
  // Expert 1 is chosen with 0.6, 0.9, 0.3 and then with 0.5, 0.2, 0.8.
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 7, 1, -1, 5, 8, 9, -1, 6, 2}));
  EXPECT_EQ(plan.token_of_row, (Indices{0, 2, 5, 0, 1, 3, 5, 1, 3, 4}));
}

TEST(DispatchPlan, PrefersTheEarlierOfEqualGates) {
  const Routing routing{.experts = 2, .top_k = 1, .chosen = {1, 1, 1}, .gates = {0.5f, 0.5f, 0.5f}};
  EXPECT_EQ(make_dispatch_plan(routing, 3, 2, DropPolicy::probs).row_of_choice, (Indices{0, 1, -1}));
}

TEST(DispatchPlan, HoldsWhenNobodyOrEverybodyComes) {
  const Routing all_to_one{.experts = 3, .top_k = 1, .chosen = {2, 2, 2, 2}, .gates = {1, 1, 1, 1}};
  EXPECT_EQ(make_dispatch_plan(all_to_one, 4, std::nullopt, DropPolicy::position).counts, (Counts{0, 0, 4}));
  EXPECT_EQ(make_dispatch_plan(all_to_one, 4, 0, DropPolicy::position).rows(), 0);
  const Routing nobody{.experts = 3, .top_k = 2, .chosen = {}, .gates = {}};
  EXPECT_EQ(make_dispatch_plan(nobody, 4, std::nullopt, DropPolicy::position).counts, (Counts{0, 0, 0}));
}

TEST(MoeConfig, CapacityIsAnEvenShareTimesItsFactorRoundedUp) {
  MoeConfig config{.experts = 8, .top_k = 2, .capacity_factor = 1.25};
  EXPECT_EQ(config.capacity(256), 80);
  EXPECT_EQ(config.capacity(3), 1);
  EXPECT_EQ(config.capacity(0), 0);
  for (const double factor : {100.0, 1e30}) {
    config.capacity_factor = factor;
    EXPECT_EQ(config.capacity(256), 256);  // no more can come
  }
  config.capacity_factor.reset();
  EXPECT_EQ(config.capacity(256), 256);
}

TEST(MoeConfig, EvenCountsShareWhatComes) {
  EXPECT_EQ(even_counts({.experts = 4, .top_k = 1}, 6, 3), (Counts{2, 2, 1, 1}));
  EXPECT_EQ(even_counts({.experts = 2, .top_k = 2, .capacity_factor = 0.5}, 8, 4), (Counts{4, 4}));
}

TEST(RoutingRecord, SaysHowUnevenLoadsAre) {
  RoutingRecord record;
  record.at(0) = {.load = {6, 2, 0, 0}, .dropped = {2, 0, 0, 0}};
  record.at(1) = {.load = {2, 2, 2, 2}, .dropped = {0, 0, 0, 0}};
  EXPECT_DOUBLE_EQ(record.imbalance(), (3 + 1) / 2.0);
  EXPECT_DOUBLE_EQ(record.dropped_share(), 2.0 / 16);
  EXPECT_DOUBLE_EQ(imbalance_of({0, 0}), 1);
}

// ---- routers -------------------------------------------------------------------------------------------------------

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

// What a router chooses and the gates it gives, from logits that are the rows of x.
Routing route(const MoeConfig& moe, const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  const DeviceHandle device = make_test_device();
  TopKRouter router(moe, moe.experts, 0, 1, normal(1));
  struct Holder : Layer {
    explicit Holder(TopKRouter& own) : router(own) {}
    Tensor forward(const Tensor& x, Saved&) override { return x; }
    Tensor backward(const Tensor& dy, Saved&) override { return dy; }
    void visit(Visitor& visitor) override { router.visit(visitor); }
    TopKRouter& router;
  } holder(router);
  materialize(holder, device, {}, 1);
  std::vector<float> identity(static_cast<size_t>(moe.experts * moe.experts), 0);
  for (int64_t e = 0; e < moe.experts; ++e) identity[static_cast<size_t>(e * (moe.experts + 1))] = 1;
  ops::copy_(router.weight.value, Tensor::from(device, {moe.experts, moe.experts}, identity));
  if (!bias.empty()) ops::copy_(router.bias->value, Tensor::from(device, {moe.experts}, bias));
  Step step;
  step.rows_per_sample = static_cast<int64_t>(logits.size()) / moe.experts;
  step.training = false;
  Saved saved(step);
  return router.forward(Tensor::from(device, {step.rows_per_sample, moe.experts}, logits), saved);
}

void expect_gates(const Routing& routing, const std::vector<double>& expected) {
  ASSERT_EQ(routing.gates.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(routing.gates[i], expected[i], 1e-6) << i;
}

TEST(Router, MakesGatesAsItsKindSays) {
  const double e1 = std::exp(1.0), e2 = std::exp(2.0), s1 = 1 / (1 + 1 / e1), s2 = 1 / (1 + 1 / e2);
  MoeConfig moe{.experts = 3, .top_k = 2};
  const std::vector<float> logits = {1, 0, 2};
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::topk_softmax, RouterKind::sigmoid}) {
    moe.router = kind;
    EXPECT_EQ(route(moe, logits).chosen, (Indices{2, 0}));
  }
  expect_gates(route(moe, logits), {s2 / (s1 + s2), s1 / (s1 + s2)});
  moe.router = RouterKind::softmax;
  expect_gates(route(moe, logits), {e2 / (e1 + e2), e1 / (e1 + e2)});
  moe.router = RouterKind::topk_softmax;
  expect_gates(route(moe, logits), {e2 / (e1 + e2), e1 / (e1 + e2)});
  moe.top_k = 1;
  expect_gates(route(moe, logits), {1});
  moe.router = RouterKind::softmax;
  expect_gates(route(moe, logits), {e2 / (1 + e1 + e2)});
  moe.router = RouterKind::sigmoid;
  expect_gates(route(moe, logits), {s2});
}

TEST(Router, ChoosesByScoreAndBiasButGatesByScore) {
  const MoeConfig moe{.experts = 3, .top_k = 1, .router = RouterKind::sigmoid, .balance = Balance::bias};
  const Routing routing = route(moe, {0, 1, 0.5f}, {0.5f, 0, 0});
  EXPECT_EQ(routing.chosen, (Indices{0}));
  expect_gates(routing, {0.5});
}

TEST(Router, KeepsLargeLogitsFinite) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::topk_softmax, RouterKind::sigmoid}) {
    const Routing routing = route({.experts = 3, .top_k = 2, .router = kind}, {500, -500, 499, -800, -900, -1000});
    EXPECT_EQ(routing.chosen[0], 0);
    for (const float gate : routing.gates) EXPECT_TRUE(std::isfinite(gate));
  }
}

TEST(Router, MovesItsBiasAgainstTheLoad) {
  const DeviceHandle device = make_test_device();
  const MoeConfig moe{.experts = 4, .top_k = 2, .balance = Balance::bias, .bias_update_rate = 0.25};
  const MixtureParts parts = make_mixture(device, moe);
  RoutingRecord loads;
  loads.at(0).load = {5, 3, 4, 4};
  parts.router->update_bias(loads);
  EXPECT_EQ(parts.router->bias->value.to_vector<float>(), (std::vector<float>{-0.25f, 0.25f, 0, 0}));
}

// ---- the layer -----------------------------------------------------------------------------------------------------

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
    const DispatchPlan plan = make_dispatch_plan(routing, length, moe.capacity(length), moe.drop_policy);
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
    for (int64_t sample = 3; sample < 5; ++sample) to_one.choices[{0, sample}] = Indices(length, 2);
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

TEST(MixtureOfExperts, TakesTheChoicesItIsGivenAndListsThoseItWouldNotHaveMade) {
  const DeviceHandle device = make_test_device();
  const MoeConfig moe{.experts = 4, .top_k = 2, .router = RouterKind::topk_softmax};
  const MixtureParts parts = make_mixture(device, moe);
  const Tensor x = random_tensor(device, {rows, dim}, Dtype::f32, 1);
  RoutingRecord own, replayed;
  own.keeps_choices = true;
  Saved first(make_step(&own));
  const Tensor y = parts.layer->forward(x, first);
  EXPECT_EQ(own.choices.size(), 2u);
  Saved second(make_step(&replayed, &own));
  EXPECT_TRUE(same_bits(parts.layer->forward(x, second), y));
  EXPECT_TRUE(replayed.differences.empty());

  // The second choice of sample 4, position 1 becomes the worst of the four.
  const auto logits =
      doubles(ops::matmul(x.rows(length + 1, length + 2), parts.router->weight.value, {.transpose_b = true}));
  const auto worst = std::min_element(logits.begin(), logits.end());
  const double left_out = logits[static_cast<size_t>(own.choices.at({0, 4})[3])];
  own.choices.at({0, 4})[3] = static_cast<int32_t>(worst - logits.begin());
  Saved third(make_step(&replayed, &own));
  EXPECT_FALSE(same_bits(parts.layer->forward(x, third), y));
  ASSERT_EQ(replayed.differences.size(), 1u);
  const auto& [layer, sample, position, gap] = replayed.differences.front();
  EXPECT_EQ((std::array{layer, sample, position}), (std::array<int64_t, 3>{0, 4, 1}));
  EXPECT_NEAR(gap, left_out - *worst, 1e-6);
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
