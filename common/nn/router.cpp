#include "common/nn/router.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/nn/loss.h"

namespace ninefold {
namespace {

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

// Added to sums of scores that may all be too small for the type.
constexpr double tiny = 1e-20;

// What is made of one token's logits. In f64: these are few numbers, and everything else follows from them.
struct TokenScores {
  TokenScores(RouterKind kind, int64_t experts) : kind(kind), scores(static_cast<size_t>(experts)) {
    normalised = probabilities = scores;
  }

  void read(const float* logits) {
    const double largest = *std::max_element(logits, logits + scores.size());
    double total = 0;
    for (size_t e = 0; e < scores.size(); ++e) total += probabilities[e] = std::exp(logits[e] - largest);
    for (double& value : probabilities) value /= total;
    log_sum_exp = largest + std::log(total);
    if (kind == RouterKind::softmax) scores = probabilities;
    if (kind == RouterKind::topk_softmax) scores.assign(logits, logits + scores.size());
    normalised = probabilities;
    if (kind != RouterKind::sigmoid) return;
    for (size_t e = 0; e < scores.size(); ++e) scores[e] = 1 / (1 + std::exp(-static_cast<double>(logits[e])));
    sum = std::accumulate(scores.begin(), scores.end(), tiny);
    for (size_t e = 0; e < scores.size(); ++e) normalised[e] = scores[e] / sum;
  }

  // From the gradients of the scores and of their normalised form to those of the logits, in place of the first.
  void backward(std::vector<double>& dscores, std::vector<double>& dnormalised) const {
    // Scores are the probabilities themselves, or, for topk_softmax, the logits.
    for (size_t e = 0; e < dscores.size() && kind == RouterKind::softmax; ++e) {
      dnormalised[e] += std::exchange(dscores[e], 0);
    }
    const double mean = dot(normalised, dnormalised);
    for (size_t e = 0; e < dscores.size(); ++e) {
      const double centred = dnormalised[e] - mean;
      dscores[e] = kind == RouterKind::sigmoid ? (dscores[e] + centred / sum) * scores[e] * (1 - scores[e])
                                               : dscores[e] + centred * normalised[e];
    }
  }

  RouterKind kind;
  std::vector<double> scores;         // to choose by, and to make gates of
  std::vector<double> normalised;     // over all experts: for the balancing loss
  std::vector<double> probabilities;  // softmax of the logits
  double log_sum_exp = 0;
  double sum = 1;  // normalised = scores / sum for a sigmoid
};

// The gates of a token's choices, and the way back from their gradients to those of the scores.
struct TokenGates {
  TokenGates(RouterKind kind, int64_t top_k)
      : kind(kind),
        is_divided(kind == RouterKind::topk_softmax || top_k > 1),
        gates(static_cast<size_t>(top_k)),
        dgates(gates) {}

  void read(const double* scores, const int32_t* chosen) {
    for (size_t choice = 0; choice < gates.size(); ++choice) gates[choice] = scores[chosen[choice]];
    if (kind == RouterKind::topk_softmax) {
      const double largest = *std::max_element(gates.begin(), gates.end());
      for (double& gate : gates) gate = std::exp(gate - largest);
    }
    if (is_divided) sum = std::accumulate(gates.begin(), gates.end(), tiny);
    for (double& gate : gates) gate /= sum;
  }

  // dscores[chosen] = …; scores are logits where kind is topk_softmax.
  void backward(const float* gradients, const int32_t* chosen, std::vector<double>& dscores) {
    dgates.assign(gradients, gradients + gates.size());
    const double mean = is_divided ? dot(gates, dgates) : 0;
    for (size_t choice = 0; choice < gates.size(); ++choice) {
      const double factor = kind == RouterKind::topk_softmax ? gates[choice] : 1 / sum;
      dscores[static_cast<size_t>(chosen[choice])] = factor * (dgates[choice] - mean);
    }
  }

  RouterKind kind;
  bool is_divided;
  std::vector<double> gates, dgates;
  double sum = 1;  // by which the chosen scores are divided
};

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
  if (x.device()->type() != DeviceType::meta) decide(logits.to_vector<float>(), routing, saved.step());
  auto choices = std::make_shared<Choices>();
  choices->own = routing.chosen;
  if (x.device()->type() != DeviceType::meta) choices->whole = complete(routing, saved.step());
  if (!saved.step().recomputing) book(*choices, saved.step());
  saved.push_plan(choices);
  return routing;
}

void TopKRouter::decide(const std::vector<float>& logits, Routing& routing, Step& step) const {
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
}

std::vector<int32_t> TopKRouter::complete(Routing& routing, const Step& step) const {
  if (!sequences_ || routing.chosen.empty()) return routing.chosen;
  const int64_t rows = step.rows_per_sample, top_k = config_.top_k;
  Routing whole = {.experts = config_.experts, .top_k = top_k, .chosen = {}, .gates = {}};
  whole.chosen = sequences_->gather(routing.chosen, top_k, rows);
  if (!config_.capacity_factor) return whole.chosen;
  if (config_.drop_policy == DropPolicy::probs) {
    std::vector<int32_t> bits(routing.gates.size());
    std::memcpy(bits.data(), routing.gates.data(), bits.size() * sizeof(float));
    bits = sequences_->gather(bits, top_k, rows);
    whole.gates.resize(bits.size());
    std::memcpy(whole.gates.data(), bits.data(), bits.size() * sizeof(float));
  }
  const int64_t length = this->length(step);
  routing.place_of_choice =
      sequences_->own(place_choices(whole, length, config_.capacity(length), config_.drop_policy), top_k, rows);
  return whole.chosen;
}

std::vector<int32_t> TopKRouter::choose(const std::vector<float>& choosing, Step& step) const {
  std::vector<int32_t> best = top_k_experts(choosing, config_.experts, config_.top_k);
  if (!step.replay) return best;
  std::vector<int32_t> taken;
  const int64_t tokens = static_cast<int64_t>(best.size()) / config_.top_k;
  for (int64_t sequence = 0; sequence * step.rows_per_sample < tokens; ++sequence) {
    const auto found = step.replay->choices.find({layer_, step.first_sample + sequence});
    expect(found != step.replay->choices.end(), "no choices of layer {} and sample {} to replay", layer_,
           step.first_sample + sequence);
    taken.insert(taken.end(), found->second.begin(), found->second.end());
  }
  expect(taken.size() == best.size(), "{} choices to replay, but {} to make", taken.size(), best.size());
  for (int64_t token = 0; token < tokens && step.routing && !step.recomputing; ++token) {
    const auto gap = gap_of(choosing.data() + token * config_.experts, best.data() + token * config_.top_k,
                            taken.data() + token * config_.top_k, config_.top_k);
    if (!gap) continue;
    const int64_t sample = step.first_sample + token / step.rows_per_sample;
    step.routing->differences.push_back({layer_, sample, token % step.rows_per_sample, *gap});
  }
  return taken;
}

void TopKRouter::book(const Choices& choices, Step& step) const {
  const auto& [own, whole] = choices;
  add_counts(step.batch_load, count_choices(whole.data(), whole.data() + whole.size(), config_.experts));
  if (!step.routing) return;
  add_counts(step.routing->at(layer_).load, count_choices(own.data(), own.data() + own.size(), config_.experts));
  if (!step.routing->keeps_choices) return;
  const int64_t each = length(step) * config_.top_k;
  for (int64_t first = 0; first < static_cast<int64_t>(whole.size()); first += each) {
    step.routing->choices[{layer_, step.first_sample + first / each}] = {whole.begin() + first,
                                                                         whole.begin() + first + each};
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
    if (token % step.rows_per_sample == 0) shares = shares_of_load(choices.whole, token / step.rows_per_sample, step);
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
  Tensor dlogits = Tensor::empty(x.device(), logits.shape(), Dtype::f32);
  if (x.device()->type() != DeviceType::meta) {
    dlogits =
        Tensor::from(x.device(), logits.shape(),
                     logit_gradients(logits.to_vector<float>(), *choices, dgates.to_vector<float>(), saved.step()));
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
