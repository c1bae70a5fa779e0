#include "common/nn/router.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/nn/loss.h"
#include "common/nn/token_scores.h"

namespace ninefold {
namespace {

// How much better than the worst of `taken` the best choice that it leaves out is; absent where it leaves none out.
std::optional<double> gap_of(const float* scores, const int32_t* best, const int32_t* taken, int64_t top_k) {
  std::optional<double> left_out, worst;
  for (int64_t choice = 0; choice < top_k; ++choice) {
    const double own = scores[best[choice]], other = scores[taken[choice]];
    if (std::find(taken, taken + top_k, best[choice]) == taken + top_k)
      left_out = std::max(left_out.value_or(own), own);
    if (std::find(best, best + top_k, taken[choice]) == best + top_k) worst = std::min(worst.value_or(other), other);
  }
  return left_out ? std::optional(*left_out - *worst) : std::nullopt;
}

void add_counts(std::vector<int64_t>& sum, const std::vector<int64_t>& counts) {
  sum.resize(counts.size(), 0);
  for (size_t i = 0; i < counts.size(); ++i) sum[i] += counts[i];
}

}  // namespace

TopKRouter::TopKRouter(const MoeConfig& config, int64_t dim, int64_t layer, int64_t layers, ops::Distribution initial)
    : weight({config.experts, dim}, initial), config_(config), layer_(layer), layers_(layers) {
  if (config.balance == Balance::bias) bias = Buffer{{config.experts}};
}

Routing TopKRouter::forward(const Tensor& x, Saved& saved) {
  saved.push(x);
  const Tensor logits = saved.keep(SavedOperation::matmul, [&] {
    const Tensor result = Tensor::empty(x.device(), {x.dim(0), config_.experts}, Dtype::f32);
    ops::matmul_into(result, x, weight.value, {.transpose_b = true});
    return result;
  });
  saved.push(logits);
  Routing routing{.experts = config_.experts, .top_k = config_.top_k, .chosen = {}, .gates = {}};
  auto choices = std::make_shared<Choices>();
  if (x.device()->type() != DeviceType::meta) *choices = decide(logits.to_vector<float>(), routing, saved.step());
  if (!saved.step().recomputing) book(*choices, saved.step());
  saved.push_plan(choices);
  return routing;
}

TopKRouter::Choices TopKRouter::decide(const std::vector<float>& logits, Routing& routing, Step& step) const {
  const auto experts = static_cast<size_t>(config_.experts), top_k = static_cast<size_t>(config_.top_k);
  std::vector<float> offset(experts, 0), choosing;
  if (bias) offset = bias->value.to_vector<float>();
  TokenScores of(config_.router, config_.experts);
  std::vector<double> scores;
  for (size_t first = 0; first < logits.size(); first += experts) {
    of.read(logits.data() + first);
    scores.insert(scores.end(), of.scores.begin(), of.scores.end());
    for (size_t e = 0; e < experts; ++e) choosing.push_back(static_cast<float>(of.scores[e]) + offset[e]);
  }
  routing.chosen = choose(choosing, step);
  TokenGates token(config_.router, config_.top_k);
  for (size_t first = 0; first < logits.size(); first += experts) {
    token.read(scores.data() + first, routing.chosen.data() + first / experts * top_k);
    routing.gates.insert(routing.gates.end(), token.gates.begin(), token.gates.end());
  }
  Routing whole = whole_of(routing, step);
  const std::vector<int32_t> places = place(whole, step);
  routing.place_of_choice = sequences_ ? sequences_->own(places, config_.top_k, step.rows_per_sample) : places;
  return {routing.chosen, {whole.chosen, places}};
}

Routing TopKRouter::whole_of(const Routing& own, const Step& step) const {
  if (!sequences_ || own.chosen.empty()) return own;
  const auto gather = [&](const std::vector<int32_t>& values) {
    return sequences_->gather(values, config_.top_k, step.rows_per_sample);
  };
  Routing whole = {.experts = config_.experts, .top_k = config_.top_k, .chosen = gather(own.chosen), .gates = {}};
  if (!drops_by_gate()) return whole;
  std::vector<int32_t> bits(own.gates.size());
  std::memcpy(bits.data(), own.gates.data(), bits.size() * sizeof(float));
  bits = gather(bits);
  whole.gates.resize(bits.size());
  std::memcpy(whole.gates.data(), bits.data(), bits.size() * sizeof(float));
  return whole;
}

std::vector<int32_t> TopKRouter::choose(const std::vector<float>& choosing, Step& step) const {
  std::vector<int32_t> best = top_k_experts(choosing, config_.experts, config_.top_k);
  if (!step.replay) return best;
  std::vector<int32_t> taken = replayed(&RoutingRecord::Choices::chosen, best.size(), step);
  for (int64_t token = 0; token * config_.top_k < static_cast<int64_t>(best.size()); ++token) {
    const auto gap = gap_of(choosing.data() + token * config_.experts, best.data() + token * config_.top_k,
                            taken.data() + token * config_.top_k, config_.top_k);
    if (gap) book_difference(token, *gap, step);
  }
  return taken;
}

std::vector<int32_t> TopKRouter::place(Routing& whole, Step& step) const {
  const DropPolicy policy = drops_by_gate() ? DropPolicy::probs : DropPolicy::position;
  const int64_t length = this->length(step);
  whole.place_of_choice = place_choices(whole, length, config_.capacity(length), policy);
  if (!step.replay) return whole.place_of_choice;
  std::vector<int32_t> places = replayed(&RoutingRecord::Choices::places, whole.chosen.size(), step);
  for (const auto& [choice, gap] : compare_drops(whole, places, length, policy)) {
    book_difference(choice / config_.top_k, gap, step);
  }
  return places;
}

std::vector<int32_t> TopKRouter::replayed(Part part, size_t size, const Step& step) const {
  const auto each = static_cast<size_t>(step.rows_per_sample * config_.top_k);
  std::vector<int32_t> taken;
  for (int64_t sample = step.first_sample; taken.size() < size; ++sample) {
    const auto found = step.replay->choices.find({layer_, sample});
    expect(found != step.replay->choices.end(), "no choices of layer {} and sample {} to replay", layer_, sample);
    const std::vector<int32_t>& values = found->second.*part;
    expect(values.size() == each, "{} choices to replay, but {} to make", values.size(), each);
    taken.insert(taken.end(), values.begin(), values.end());
  }
  return taken;
}

void TopKRouter::book_difference(int64_t token, double gap, Step& step) const {
  if (!step.routing || step.recomputing) return;
  const int64_t sample = step.first_sample + token / step.rows_per_sample;
  step.routing->differences.push_back({layer_, sample, token % step.rows_per_sample, gap});
}

void TopKRouter::book(const Choices& choices, Step& step) const {
  const auto& [own, whole] = choices;
  const std::vector<int32_t>& chosen = whole.chosen;
  add_counts(step.batch_load, count_choices(chosen.data(), chosen.data() + chosen.size(), config_.experts));
  if (!step.routing) return;
  add_counts(step.routing->at(layer_).load, count_choices(own.data(), own.data() + own.size(), config_.experts));
  if (!step.routing->keeps_choices) return;
  const int64_t each = length(step) * config_.top_k;
  const auto part = [each](const std::vector<int32_t>& of, int64_t first) {
    return std::vector<int32_t>(of.begin() + first, of.begin() + first + each);
  };
  for (int64_t first = 0; first < static_cast<int64_t>(chosen.size()); first += each) {
    step.routing->choices[{layer_, step.first_sample + first / each}] = {part(chosen, first),
                                                                         part(whole.places, first)};
  }
}

std::vector<double> TopKRouter::shares_of_load(const std::vector<int32_t>& whole, int64_t sequence,
                                               const Step& step) const {
  const int64_t each = length(step) * config_.top_k;
  const int32_t* const first = whole.data() + sequence * each;
  const bool of_batch = config_.balance_scope == BalanceScope::batch;
  const std::vector<int64_t> load = of_batch ? step.batch_load : count_choices(first, first + each, config_.experts);
  const auto choices = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0}));
  std::vector<double> shares(load.begin(), load.end());
  for (double& share : shares) share *= static_cast<double>(config_.top_k) / choices;
  return shares;
}

std::vector<float> TopKRouter::logit_gradients(const std::vector<float>& logits, const Choices& choices,
                                               const std::vector<float>& dgates, Step& step) const {
  const int64_t experts = config_.experts, top_k = config_.top_k;
  // Of one token in the means over the global batch, and over the layers too.
  const double in_mean = 1 / static_cast<double>(step.global_targets);
  const double scale = step.loss_scale * in_mean / static_cast<double>(layers_);
  const double balance = config_.balance == Balance::auxiliary ? config_.balance_coefficient * scale : 0;
  double balance_loss = 0, z_loss = 0;
  TokenScores of(config_.router, experts);
  TokenGates gates(config_.router, top_k);
  std::vector<double> shares, dscores, dnormalised(static_cast<size_t>(experts));
  std::vector<float> dlogits;
  for (int64_t token = 0; token * experts < static_cast<int64_t>(logits.size()); ++token) {
    if (token % step.rows_per_sample == 0)
      shares = shares_of_load(choices.whole.chosen, token / step.rows_per_sample, step);
    of.read(logits.data() + token * experts);
    gates.read(of.scores.data(), choices.own.data() + token * top_k);
    dscores.assign(static_cast<size_t>(experts), 0);
    gates.backward(dgates.data() + token * top_k, choices.own.data() + token * top_k, dscores);
    for (size_t e = 0; e < shares.size(); ++e) dnormalised[e] = balance * static_cast<double>(experts) * shares[e];
    of.backward(dscores, dnormalised);
    const double dlog_sum_exp = config_.z_loss_coefficient * 2 * of.log_sum_exp * scale;
    for (size_t e = 0; e < dscores.size(); ++e) {
      dlogits.push_back(static_cast<float>(dscores[e] + dlog_sum_exp * of.probabilities[e]));
    }
    balance_loss += static_cast<double>(experts) * dot(shares, of.normalised) * in_mean;
    z_loss += of.log_sum_exp * of.log_sum_exp * in_mean;
  }
  if (step.routing) step.routing->at(layer_).balance_loss += balance_loss;
  if (step.routing) step.routing->at(layer_).z_loss += z_loss;
  return dlogits;
}

Tensor TopKRouter::backward(const Tensor& dgates, Saved& saved) {
  const auto choices = saved.pop_plan<Choices>();
  const Tensor logits = saved.pop(), x = saved.pop();
  const Tensor dlogits = Tensor::empty(x.device(), logits.shape(), Dtype::f32);
  if (x.device()->type() != DeviceType::meta) {
    dlogits.copy_from_host(
        logit_gradients(logits.to_vector<float>(), *choices, dgates.to_vector<float>(), saved.step()).data());
  }
  const Tensor dy = x.dtype() == Dtype::f32 ? dlogits : ops::cast(dlogits, x.dtype());
  saved.add_weight_gradients([this, dy, x] {
    weight.write_gradient([&](const Tensor& dweight, bool accumulate) {
      ops::matmul_into(dweight, dy, x, {.transpose_a = true, .accumulate = accumulate});
    });
  });
  return ops::matmul(dy, weight.value);
}

void TopKRouter::update_bias(const RoutingRecord& loads) {
  if (!bias) return;
  const std::vector<int64_t>& load = loads.layers.at(static_cast<size_t>(layer_)).load;
  expect(static_cast<int64_t>(load.size()) == config_.experts, "loads of {} experts for a router of {}", load.size(),
         config_.experts);
  const double mean =
      static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0})) / static_cast<double>(load.size());
  std::vector<float> values = bias->value.to_vector<float>();
  for (size_t e = 0; e < load.size(); ++e) {
    const double below = mean - static_cast<double>(load[e]);
    values[e] += static_cast<float>(config_.bias_update_rate * (below > 0 ? 1 : below < 0 ? -1 : 0));
  }
  ops::copy_(bias->value, Tensor::from(bias->value.device(), bias->shape, values));
}

void TopKRouter::visit(Visitor& visitor) {
  visitor.parameter("weight", weight);
  if (bias) visitor.buffer("bias", *bias);
}

}  // namespace ninefold
