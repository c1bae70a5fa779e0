// What a router makes of one token: scores of its logits, gates of the scores of chosen experts, and the way back of
// their gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "common/nn/routing.h"

namespace ninefold {

inline double dot(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

// Added to sums of scores that may all be too small for the type.
inline constexpr double tiny = 1e-20;

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

}  // namespace ninefold
