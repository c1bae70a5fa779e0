#include "common/nn/router.h"

#include <algorithm>
#include <cmath>
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
  std::vector<double> scores;         // to choose by, and to make gates of
  std::vector<double> normalised;     // over all experts: for the balancing loss
  std::vector<double> probabilities;  // softmax of the logits
  double log_sum_exp = 0;
  double sum = 1;  // normalised = scores / sum, but for topk_softmax

  TokenScores(RouterKind kind, const float* logits, int64_t experts) : probabilities(logits, logits + experts) {
    const std::vector<double> wide = probabilities;
    const double largest = *std::max_element(wide.begin(), wide.end());
    double total = 0;
    for (double& value : probabilities) total += value = std::exp(value - largest);
    for (double& value : probabilities) value /= total;
    log_sum_exp = largest + std::log(total);
    scores = kind == RouterKind::softmax ? probabilities : wide;
    normalised = probabilities;
    if (kind != RouterKind::sigmoid) return;
    for (double& value : scores) value = 1 / (1 + std::exp(-value));
    sum = std::accumulate(scores.begin(), scores.end(), tiny);
    normalised = scores;
    for (double& value : normalised) value /= sum;
  }
};

// The gates of a token's choices, and the way back from their gradients to those of the scores.
struct TokenGates {
  std::vector<double> gates;
  double sum = 1;  // by which the chosen scores are divided

  TokenGates(RouterKind kind, const TokenScores& of, const int32_t* chosen, int64_t top_k) {
    for (int64_t choice = 0; choice < top_k; ++choice) gates.push_back(of.scores[static_cast<size_t>(chosen[choice])]);
    if (kind == RouterKind::topk_softmax) {
      const double largest = *std::max_element(gates.begin(), gates.end());
      for (double& gate : gates) gate = std::exp(gate - largest);
    }
    if (kind == RouterKind::topk_softmax || top_k > 1) sum = std::accumulate(gates.begin(), gates.end(), tiny);
    for (double& gate : gates) gate /= sum;
  }

  // dscores[chosen] += …; scores are logits where kind is topk_softmax.
  void backward(RouterKind kind, const float* dgates, const int32_t* chosen, std::vector<double>& dscores) const {
    const std::vector<double> wide(dgates, dgates + gates.size());
    const bool divided = kind == RouterKind::topk_softmax || gates.size() > 1;
    const double mean = divided ? dot(gates, wide) : 0;
    for (size_t choice = 0; choice < gates.size(); ++choice) {
      const double factor = kind == RouterKind::topk_softmax ? gates[choice] : 1 / sum;
      dscores[static_cast<size_t>(chosen[choice])] += factor * (wide[choice] - mean);
    }
  }
};

// From the gradients of the scores and of their normalised form to those of the logits.
std::vector<double> logit_gradient(RouterKind kind, const TokenScores& of, std::vector<double> dscores,
                                   std::vector<double> dnormalised) {
  if (kind == RouterKind::sigmoid) {
    const double mean = dot(of.normalised, dnormalised);
    for (size_t e = 0; e < dscores.size(); ++e) {
      dscores[e] = (dscores[e] + (dnormalised[e] - mean) / of.sum) * of.scores[e] * (1 - of.scores[e]);
    }
    return dscores;
  }
  // Scores are the probabilities themselves, or the logits.
  if (kind == RouterKind::softmax) {
    for (size_t e = 0; e < dscores.size(); ++e) dnormalised[e] += std::exchange(dscores[e], 0);
  }
  const double mean = dot(of.probabilities, dnormalised);
  for (size_t e = 0; e < dscores.size(); ++e) dscores[e] += of.probabilities[e] * (dnormalised[e] - mean);
  return dscores;
}

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
  if (x.device()->type() != DeviceType::meta) {
    const std::vector<float> values = logits.to_vector<float>();
    std::vector<float> choosing, offset(static_cast<size_t>(config_.experts), 0);
    if (bias) offset = bias->value.to_vector<float>();
    std::vector<TokenScores> tokens;
    for (int64_t token = 0; token < x.dim(0); ++token) {
      tokens.emplace_back(config_.router, values.data() + token * config_.experts, config_.experts);
      for (size_t e = 0; e < offset.size(); ++e)
        choosing.push_back(static_cast<float>(tokens.back().scores[e]) + offset[e]);
    }
    routing.chosen = choose(choosing, saved.step());
    for (size_t token = 0; token < tokens.size(); ++token) {
      const int32_t* const chosen = routing.chosen.data() + static_cast<int64_t>(token) * config_.top_k;
      for (const double gate : TokenGates(config_.router, tokens[token], chosen, config_.top_k).gates) {
        routing.gates.push_back(static_cast<float>(gate));
      }
    }
    if (!saved.step().recomputing) book(routing.chosen, saved.step());
  }
  saved.push_plan(std::make_shared<const std::vector<int32_t>>(routing.chosen));
  return routing;
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

void TopKRouter::book(const std::vector<int32_t>& chosen, Step& step) const {
  const std::vector<int64_t> load = count_choices(chosen.data(), chosen.data() + chosen.size(), config_.experts);
  add_counts(step.batch_load, load);
  if (!step.routing) return;
  add_counts(step.routing->at(layer_).load, load);
  if (!step.routing->keeps_choices) return;
  const int64_t each = step.rows_per_sample * config_.top_k;
  for (int64_t first = 0; first < static_cast<int64_t>(chosen.size()); first += each) {
    step.routing->choices[{layer_, step.first_sample + first / each}] = {chosen.begin() + first,
                                                                         chosen.begin() + first + each};
  }
}

std::vector<double> TopKRouter::shares_of_load(const std::vector<int32_t>& chosen, int64_t sequence,
                                               const Step& step) const {
  const int64_t each = step.rows_per_sample * config_.top_k;
  const int32_t* const first = chosen.data() + sequence * each;
  const bool of_batch = config_.balance_scope == BalanceScope::batch;
  const std::vector<int64_t> load = of_batch ? step.batch_load : count_choices(first, first + each, config_.experts);
  const auto choices = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0}));
  std::vector<double> shares(load.begin(), load.end());
  for (double& share : shares) share *= static_cast<double>(config_.top_k) / choices;
  return shares;
}

std::vector<float> TopKRouter::logit_gradients(const std::vector<float>& logits, const std::vector<int32_t>& chosen,
                                               const std::vector<float>& dgates, Step& step) const {
  const int64_t experts = config_.experts, top_k = config_.top_k;
  const bool has_balance = config_.balance == Balance::auxiliary;
  // Of one token in the means over the global batch, and over the layers too.
  const double in_mean = 1 / static_cast<double>(step.global_targets);
  const double scale = step.loss_scale * in_mean / static_cast<double>(layers_);
  double balance_loss = 0, z_loss = 0;
  std::vector<double> shares;
  std::vector<float> dlogits;
  for (int64_t token = 0; token * experts < static_cast<int64_t>(logits.size()); ++token) {
    if (token % step.rows_per_sample == 0) shares = shares_of_load(chosen, token / step.rows_per_sample, step);
    const TokenScores of(config_.router, logits.data() + token * experts, experts);
    const int32_t* const choices = chosen.data() + token * top_k;
    std::vector<double> dscores(shares.size(), 0), dnormalised(shares.size(), 0);
    TokenGates(config_.router, of, choices, top_k)
        .backward(config_.router, dgates.data() + token * top_k, choices, dscores);
    for (size_t e = 0; e < shares.size() && has_balance; ++e) {
      dnormalised[e] = config_.balance_coefficient * static_cast<double>(experts) * shares[e] * scale;
    }
    std::vector<double> gradient = logit_gradient(config_.router, of, dscores, dnormalised);
    for (size_t e = 0; e < gradient.size(); ++e) {
      gradient[e] += config_.z_loss_coefficient * 2 * of.log_sum_exp * of.probabilities[e] * scale;
    }
    dlogits.insert(dlogits.end(), gradient.begin(), gradient.end());
    balance_loss += static_cast<double>(experts) * dot(shares, of.normalised) * in_mean;
    z_loss += of.log_sum_exp * of.log_sum_exp * in_mean;
  }
  if (step.routing) step.routing->at(layer_).balance_loss += balance_loss;
  if (step.routing) step.routing->at(layer_).z_loss += z_loss;
  return dlogits;
}

Tensor TopKRouter::backward(const Tensor& dgates, Saved& saved) {
  const auto chosen = saved.pop_plan<std::vector<int32_t>>();
  const Tensor logits = saved.pop(), x = saved.pop();
  Tensor dlogits = Tensor::empty(x.device(), logits.shape(), Dtype::f32);
  if (x.device()->type() != DeviceType::meta) {
    dlogits =
        Tensor::from(x.device(), logits.shape(),
                     logit_gradients(logits.to_vector<float>(), *chosen, dgates.to_vector<float>(), saved.step()));
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
