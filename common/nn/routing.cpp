#include "common/nn/routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/base/check.h"

namespace ninefold {
namespace {

int64_t sum_of(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// NaN as less than every gate: an order needs numbers that compare.
float gate_of(const Routing& routing, int64_t choice) {
  const float value = routing.gates[static_cast<size_t>(choice)];
  return std::isnan(value) ? -1.0f : value;
}

// The choices of one sequence, [first, end), in the order in which a full expert prefers them.
std::vector<int64_t> by_preference(const Routing& routing, int64_t first, int64_t end, DropPolicy policy) {
  std::vector<int64_t> order(static_cast<size_t>(end - first));
  std::iota(order.begin(), order.end(), first);
  if (policy == DropPolicy::position) return order;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return gate_of(routing, a) > gate_of(routing, b); });
  return order;
}

// What one expert drops and takes of one sequence where it would do otherwise.
struct Exchanged {
  std::vector<int64_t> dropped, taken;  // choices
};

DropDifference difference_of(const Routing& routing, const Exchanged& exchanged, DropPolicy policy) {
  const auto& [dropped, taken] = exchanged;
  constexpr double unexplained = std::numeric_limits<double>::infinity();
  if (policy == DropPolicy::position || dropped.size() != taken.size()) {
    return {dropped.empty() ? taken.front() : dropped.front(), unexplained};
  }
  const auto by_gate = [&](int64_t a, int64_t b) { return gate_of(routing, a) < gate_of(routing, b); };
  const int64_t best = *std::max_element(dropped.begin(), dropped.end(), by_gate);
  const int64_t worst = *std::min_element(taken.begin(), taken.end(), by_gate);
  return {best, static_cast<double>(gate_of(routing, best)) - static_cast<double>(gate_of(routing, worst))};
}

}  // namespace

std::vector<int32_t> place_choices(const Routing& routing, int64_t length, int64_t capacity, DropPolicy policy) {
  expect(length > 0 && routing.tokens() % length == 0, "{} tokens are no sequences of {}", routing.tokens(), length);
  std::vector<int32_t> places(routing.chosen.size());
  const auto choices = static_cast<int64_t>(routing.chosen.size()), per_sequence = length * routing.top_k;
  for (int64_t first = 0; first < choices; first += per_sequence) {
    std::vector<int32_t> taken(static_cast<size_t>(routing.experts), 0);
    for (const int64_t choice : by_preference(routing, first, first + per_sequence, policy)) {
      const auto c = static_cast<size_t>(choice), expert = static_cast<size_t>(routing.chosen[c]);
      places[c] = taken[expert] < capacity ? taken[expert]++ : -1;
    }
  }
  return places;
}

std::vector<DropDifference> compare_drops(const Routing& routing, const std::vector<int32_t>& places, int64_t length,
                                          DropPolicy policy) {
  std::map<std::pair<int64_t, int32_t>, Exchanged> exchanged;  // of each sequence and expert
  for (size_t c = 0; c < places.size(); ++c) {
    const bool is_dropped = places[c] < 0;
    if (is_dropped == (routing.place_of_choice[c] < 0)) continue;
    const auto choice = static_cast<int64_t>(c);
    Exchanged& of_expert = exchanged[{choice / (length * routing.top_k), routing.chosen[c]}];
    (is_dropped ? of_expert.dropped : of_expert.taken).push_back(choice);
  }
  std::vector<DropDifference> differences;
  for (const auto& [key, of_expert] : exchanged) differences.push_back(difference_of(routing, of_expert, policy));
  return differences;
}

int64_t MoeConfig::capacity(int64_t length) const {
  if (!capacity_factor) return length;
  const double even = static_cast<double>(top_k * length) / static_cast<double>(experts);
  // The smaller one as a number, because what is larger than every int64_t has none.
  return static_cast<int64_t>(std::min(std::ceil(*capacity_factor * even), static_cast<double>(length)));
}

void MoeConfig::validate() const {
  if (experts == 0) return;
  require(experts > 0, "experts ({}) must be at least 1", experts);
  require(top_k >= 1 && top_k <= experts, "top-k ({}) must be from 1 to experts ({})", top_k, experts);
  require(!capacity_factor || *capacity_factor > 0,
          "capacity-factor ({}) must be above 0; leave it out to drop no token", capacity_factor.value_or(0));
}

std::vector<int32_t> top_k_experts(const std::vector<float>& scores, int64_t experts, int64_t top_k) {
  const int64_t tokens = static_cast<int64_t>(scores.size()) / experts;
  std::vector<int32_t> chosen;
  chosen.reserve(static_cast<size_t>(tokens * top_k));
  for (int64_t token = 0; token < tokens; ++token) {
    const float* const row = scores.data() + token * experts;
    const size_t first = chosen.size();
    for (int64_t choice = 0; choice < top_k; ++choice) {
      int32_t best = -1;
      for (int32_t expert = 0; expert < experts; ++expert) {
        const bool is_taken =
            std::find(chosen.begin() + static_cast<int64_t>(first), chosen.end(), expert) != chosen.end();
        if (!is_taken && (best < 0 || row[expert] > row[best])) best = expert;
      }
      chosen.push_back(best);
    }
  }
  return chosen;
}

std::vector<int64_t> count_choices(const int32_t* begin, const int32_t* end, int64_t experts) {
  std::vector<int64_t> counts(static_cast<size_t>(experts), 0);
  for (; begin != end; ++begin) ++counts.at(static_cast<size_t>(*begin));
  return counts;
}

DispatchPlan make_dispatch_plan(const Routing& routing) {
  expect(routing.place_of_choice.size() == routing.chosen.size(), "{} places for {} choices",
         routing.place_of_choice.size(), routing.chosen.size());
  DispatchPlan plan;
  plan.counts.assign(static_cast<size_t>(routing.experts), 0);
  plan.dropped = plan.counts;
  for (size_t choice = 0; choice < routing.chosen.size(); ++choice) {
    ++(routing.place_of_choice[choice] < 0 ? plan.dropped : plan.counts)[static_cast<size_t>(routing.chosen[choice])];
  }

  std::vector<int64_t> next(plan.counts.size(), 0);  // row of each expert
  std::partial_sum(plan.counts.begin(), plan.counts.end() - 1, next.begin() + 1);
  plan.token_of_row.resize(static_cast<size_t>(sum_of(plan.counts)));
  plan.row_of_choice.assign(routing.chosen.size(), -1);
  for (size_t choice = 0; choice < routing.chosen.size(); ++choice) {
    if (routing.place_of_choice[choice] < 0) continue;
    const int64_t row = next[static_cast<size_t>(routing.chosen[choice])]++;
    plan.row_of_choice[choice] = static_cast<int32_t>(row);
    plan.token_of_row[static_cast<size_t>(row)] = static_cast<int32_t>(static_cast<int64_t>(choice) / routing.top_k);
  }
  return plan;
}

std::vector<int64_t> even_counts(const MoeConfig& config, int64_t tokens, int64_t length) {
  const int64_t taken = std::min(config.top_k * tokens, config.experts * config.capacity(length) * (tokens / length));
  std::vector<int64_t> counts(static_cast<size_t>(config.experts), taken / config.experts);
  for (int64_t expert = 0; expert < taken % config.experts; ++expert) ++counts[static_cast<size_t>(expert)];
  return counts;
}

double imbalance_of(const std::vector<int64_t>& load) {
  const int64_t total = sum_of(load);
  if (total == 0) return 1;
  const auto largest = static_cast<double>(*std::max_element(load.begin(), load.end()));
  return largest * static_cast<double>(load.size()) / static_cast<double>(total);
}

double RoutingRecord::imbalance() const {
  double sum = 0;
  for (const Layer& layer : layers) sum += imbalance_of(layer.load);
  return layers.empty() ? 1 : sum / static_cast<double>(layers.size());
}

double RoutingRecord::dropped_share() const {
  int64_t dropped = 0, all = 0;
  for (const Layer& layer : layers) {
    dropped += sum_of(layer.dropped);
    all += sum_of(layer.load);
  }
  return all == 0 ? 0 : static_cast<double>(dropped) / static_cast<double>(all);
}

double RoutingRecord::balance_loss() const {
  double sum = 0;
  for (const Layer& layer : layers) sum += layer.balance_loss;
  return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
}

double RoutingRecord::z_loss() const {
  double sum = 0;
  for (const Layer& layer : layers) sum += layer.z_loss;
  return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
}

}  // namespace ninefold
