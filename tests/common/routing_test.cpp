// Where tokens go in a mixture of experts: what routers choose, and plans of who goes where and who is dropped.
#include <gtest/gtest.h>

#include <cmath>

#include "common/nn/model.h"
#include "common/nn/router.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

using Counts = std::vector<int64_t>;
using Indices = std::vector<int32_t>;

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

DispatchPlan plan_of(Routing routing, int64_t length, int64_t capacity, DropPolicy policy = DropPolicy::position) {
  routing.place_of_choice = place_choices(routing, length, capacity, policy);
  return make_dispatch_plan(routing);
}

TEST(DispatchPlan, PutsTheRowsOfEachExpertTogetherInOrderOfTokens) {
  const DispatchPlan plan = plan_of(small_routing(), 3, 3);
  EXPECT_EQ(plan.counts, (Counts{3, 6, 3}));
  EXPECT_EQ(plan.dropped, (Counts{0, 0, 0}));
  EXPECT_EQ(plan.token_of_row, (Indices{0, 2, 5, 0, 1, 2, 3, 4, 5, 1, 3, 4}));
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 9, 1, 5, 6, 10, 11, 7, 8, 2}));
  EXPECT_EQ(place_choices(small_routing(), 3, 3, DropPolicy::position), (Indices{0, 0, 1, 0, 1, 2, 0, 0, 1, 1, 2, 0}));
}

TEST(DispatchPlan, DropsTheEndOfEachSequenceByPosition) {
  const DispatchPlan plan = plan_of(small_routing(), 3, 2);
  EXPECT_EQ(plan.counts, (Counts{3, 4, 3}));
  EXPECT_EQ(plan.dropped, (Counts{0, 2, 0}));
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 7, 1, -1, 5, 8, 9, 6, -1, 2}));
}

TEST(DispatchPlan, DropsTheLowestGatesOfEachSequence) {
  const DispatchPlan plan = plan_of(small_routing(), 3, 2, DropPolicy::probs);
  EXPECT_EQ(plan.dropped, (Counts{0, 2, 0}));
  // Expert 1 is chosen with 0.6, 0.9, 0.3 and then with 0.5, 0.2, 0.8.
  EXPECT_EQ(plan.row_of_choice, (Indices{3, 0, 4, 7, 1, -1, 5, 8, 9, -1, 6, 2}));
  EXPECT_EQ(plan.token_of_row, (Indices{0, 2, 5, 0, 1, 3, 5, 1, 3, 4}));
}

TEST(DispatchPlan, PrefersTheEarlierOfEqualGates) {
  const Routing routing{.experts = 2, .top_k = 1, .chosen = {1, 1, 1}, .gates = {0.5f, 0.5f, 0.5f}};
  EXPECT_EQ(plan_of(routing, 3, 2, DropPolicy::probs).row_of_choice, (Indices{0, 1, -1}));
}

TEST(DispatchPlan, HoldsWhenNobodyOrEverybodyComes) {
  const Routing all_to_one{.experts = 3, .top_k = 1, .chosen = {2, 2, 2, 2}, .gates = {1, 1, 1, 1}};
  EXPECT_EQ(plan_of(all_to_one, 4, 4).counts, (Counts{0, 0, 4}));
  EXPECT_EQ(plan_of(all_to_one, 4, 0).rows(), 0);
  const Routing nobody{.experts = 3, .top_k = 2, .chosen = {}, .gates = {}};
  EXPECT_EQ(plan_of(nobody, 4, 4).counts, (Counts{0, 0, 0}));
}

// Expert 1 is chosen with 0.6, 0.9, 0.3 and then with 0.5, 0.2, 0.8, and takes two of three.
TEST(CompareDrops, SaysByHowMuchAFullExpertPrefersWhatItHadToDrop) {
  Routing routing = small_routing();
  routing.place_of_choice = place_choices(routing, 3, 2, DropPolicy::probs);
  Indices places = routing.place_of_choice;
  EXPECT_TRUE(compare_drops(routing, places, 3, DropPolicy::probs).empty());
  std::swap(places[0], places[5]);
  const auto differences = compare_drops(routing, places, 3, DropPolicy::probs);
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_EQ(differences[0].choice, 0);
  EXPECT_NEAR(differences[0].gap, 0.6 - 0.3, 1e-6);
}

TEST(CompareDrops, NoGateExplainsAnotherNumberOrAnotherPosition) {
  Routing routing = small_routing();
  routing.place_of_choice = place_choices(routing, 3, 2, DropPolicy::probs);
  Indices places = routing.place_of_choice;
  places[6] = -1;
  const auto more = compare_drops(routing, places, 3, DropPolicy::probs);
  ASSERT_EQ(more.size(), 1u);
  EXPECT_EQ(more[0].choice, 6);
  EXPECT_TRUE(std::isinf(more[0].gap));

  routing.place_of_choice = place_choices(routing, 3, 2, DropPolicy::position);
  places = routing.place_of_choice;
  std::swap(places[2], places[5]);
  const auto elsewhere = compare_drops(routing, places, 3, DropPolicy::position);
  ASSERT_EQ(elsewhere.size(), 1u);
  EXPECT_TRUE(std::isinf(elsewhere[0].gap));
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

// Gives a router storage.
struct RouterAlone : Layer {
  explicit RouterAlone(const MoeConfig& moe) : router(moe, moe.experts, 0, 1, {}) { materialize(*this, device, {}, 1); }
  Tensor forward(const Tensor& x, Saved&) override { return x; }
  Tensor backward(const Tensor& dy, Saved&) override { return dy; }
  void visit(Visitor& visitor) override { router.visit(visitor); }
  DeviceHandle device = make_test_device();
  TopKRouter router;
};

// What a router chooses and the gates it gives, from logits that are the rows of x.
Routing route(const MoeConfig& moe, const std::vector<float>& logits, const std::vector<float>& bias = {}) {
  RouterAlone alone(moe);
  std::vector<float> identity(static_cast<size_t>(moe.experts * moe.experts), 0);
  for (int64_t e = 0; e < moe.experts; ++e) identity[static_cast<size_t>(e * (moe.experts + 1))] = 1;
  ops::copy_(alone.router.weight.value, Tensor::from(alone.device, {moe.experts, moe.experts}, identity));
  if (!bias.empty()) ops::copy_(alone.router.bias->value, Tensor::from(alone.device, {moe.experts}, bias));
  Step step;
  step.rows_per_sample = static_cast<int64_t>(logits.size()) / moe.experts;
  step.training = false;
  Saved saved(step);
  return alone.router.forward(Tensor::from(alone.device, {step.rows_per_sample, moe.experts}, logits), saved);
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
  RouterAlone alone({.experts = 4, .top_k = 2, .balance = Balance::bias, .bias_update_rate = 0.25});
  RoutingRecord loads;
  loads.at(0).load = {5, 3, 4, 4};
  alone.router.update_bias(loads);
  EXPECT_EQ(alone.router.bias->value.to_vector<float>(), (std::vector<float>{-0.25f, 0.25f, 0, 0}));
}

}  // namespace
}  // namespace ninefold
