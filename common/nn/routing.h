// Which experts each token goes to, as pure data: what a router decides, in which rows the experts will find their
// tokens, and what is left out. Terms of GShard (Lepikhin et al. 2020, arXiv 2006.16668), Switch (Fedus et al. 2021,
// arXiv 2101.03961), Mixtral (Jiang et al. 2024, arXiv 2401.04088) and DeepSeek-V3 (2024, arXiv 2412.19437).
//
//   n tokens, E experts, k choices a token   route: [n, E] scores -> [n, k] choices
//   m <= n k rows                            plan: choices -> rows, those of expert 0 first
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/tensor/tensor.h"

namespace ninefold {

// How scores are made of logits, and gate values of scores.
//   softmax        probabilities over all experts; the chosen ones' divided by their sum (Mixtral), or, where only one
//                  is chosen, as they are (Switch)
//   topk_softmax   the logits; softmax over the chosen ones only. One alone has the gate 1, whatever its logit
//   sigmoid        of each logit by itself; divided by the sum of the chosen ones, unless it is one (DeepSeek-V3)
enum class RouterKind { softmax, topk_softmax, sigmoid };

// What keeps experts evenly loaded: nothing; a loss; or a bias that is added to the scores to choose by, not to the
// gates, and moved after each step against the load (Wang et al. 2024, arXiv 2408.15664).
enum class Balance { none, auxiliary, bias };

// Of what the balancing loss is a mean: of each sequence's own, so that no division of the batch changes it; or of each
// forward's, all its layers taken together, as in transformers.
enum class BalanceScope { sequence, batch };

// Which tokens a full expert drops: those at the end of the sequence, or those with the lowest gates.
enum class DropPolicy { position, probs };

struct MoeConfig {
  int64_t experts = 0;  // 0: no mixture
  int64_t top_k = 2;
  // Of each sequence an expert takes at most ceil(capacity_factor · top_k · length / experts) tokens; absent: all that
  // choose it (dropless).
  std::optional<double> capacity_factor{};
  DropPolicy drop_policy = DropPolicy::position;
  RouterKind router = RouterKind::softmax;
  Balance balance = Balance::auxiliary;
  BalanceScope balance_scope = BalanceScope::sequence;
  double balance_coefficient = 0.02;  // of the auxiliary loss
  double bias_update_rate = 0.01;     // by which a bias moves after a step; long trainings take 0.001
  double z_loss_coefficient = 0;      // of the mean squared log-sum-exp of the logits (ST-MoE, arXiv 2202.08906)
  int64_t shared_experts = 0;         // that every token visits: one feed-forward, so many times as wide

  // Tokens of one sequence that an expert takes; `length` where none are dropped, which is all that can come.
  int64_t capacity(int64_t length) const;
  // Throws UserError where the numbers do not fit each other.
  void validate() const;
};

// What a router decided about n tokens; [n, k] row-major. A token's choices are in falling order of score; of equal
// scores the lower expert comes first.
struct Routing {
  int64_t experts = 0, top_k = 0;
  std::vector<int32_t> chosen;  // experts
  std::vector<float> gates;     // by which the experts' results are multiplied before they are added
  // How many tokens of its sequence the expert took before it; -1: dropped, because the expert was full.
  std::vector<int32_t> place_of_choice{};

  int64_t tokens() const { return static_cast<int64_t>(chosen.size()) / top_k; }
};

// The experts with the k largest of `scores` [n, experts]; of equals the lower expert first.
std::vector<int32_t> top_k_experts(const std::vector<float>& scores, int64_t experts, int64_t top_k);
// How many of the choices fall on each expert: [experts].
std::vector<int64_t> count_choices(const int32_t* begin, const int32_t* end, int64_t experts);

// place_of_choice of such choices. Sequences are `length` consecutive tokens; an expert takes at most `capacity` of
// each.
std::vector<int32_t> place_choices(const Routing& routing, int64_t length, int64_t capacity, DropPolicy policy);

// Choices of one expert, in one sequence, that `places` drops or takes where the policy, in place_of_choice, does not.
struct DropDifference {
  // The one dropped that the policy prefers most; where no gate can explain the difference, the first dropped or, if
  // there is none, the first taken.
  int64_t choice;
  // By how much, in gates, the policy prefers it to the worst that is taken instead; infinite where no gate can explain
  // the difference: by position, or where another number is dropped.
  double gap;
};
// One for each sequence and expert whose drops differ.
std::vector<DropDifference> compare_drops(const Routing& routing, const std::vector<int32_t>& places, int64_t length,
                                          DropPolicy policy);

// Where each choice's row is: rows of expert 0 first, then of expert 1, …; within an expert in order of tokens.
struct DispatchPlan {
  std::vector<int64_t> counts;         // rows of each expert, [E]
  std::vector<int64_t> dropped;        // choices that a full expert left out, [E]
  std::vector<int32_t> token_of_row;   // [m]
  std::vector<int32_t> row_of_choice;  // [n, k]; -1: dropped

  int64_t rows() const { return static_cast<int64_t>(token_of_row.size()); }
};
// Of choices that have their places.
DispatchPlan make_dispatch_plan(const Routing& routing);

// Sequences that several ranks share, each with some of their rows: brings together what all of them found.
class WholeSequences {
 public:
  virtual ~WholeSequences() = default;
  // `own`: `width` numbers a row, for this rank's `rows` of each sequence. Returns those of whole sequences, in the
  // order of positions. All ranks that share the sequences call it.
  virtual std::vector<int32_t> gather(const std::vector<int32_t>& own, int64_t width, int64_t rows) const = 0;
  // This rank's of them again.
  virtual std::vector<int32_t> own(const std::vector<int32_t>& whole, int64_t width, int64_t rows) const = 0;
  virtual int ranks() const = 0;
};

// The rows that even loads would give each expert: for shapes on paper, where nothing is known of tokens.
std::vector<int64_t> even_counts(const MoeConfig& config, int64_t tokens, int64_t length);

// What the routers of one training step found, of the tokens that this rank routed. Sums over micro-batches; ranks with
// other tokens have other records, to be added.
struct RoutingRecord {
  struct Layer {
    std::vector<int64_t> load;     // choices of each expert, dropped ones included
    std::vector<int64_t> dropped;  // of them
    // This rank's part of the mean over the global batch. Known after the backward.
    double balance_loss = 0, z_loss = 0;
  };
  // A whole sequence's experts and places there, [length, k].
  struct Choices {
    std::vector<int32_t> chosen, places;
  };
  // Where routing was replayed: a token for which the router would have decided otherwise by itself.
  struct Difference {
    int64_t layer, sample, position;  // the sample counts within the global batch
    // By how much the best expert it had to leave out scores above the worst it had to take; of drops: compare_drops.
    double gap;
  };

  std::vector<Layer> layers;
  // Rows that the plan of each forward, told by its first sample, made of each layer's tokens.
  std::map<int64_t, std::vector<int64_t>> rows;
  // Of each layer and each sample of the global batch: kept where `keeps_choices`.
  bool keeps_choices = false;
  std::map<std::pair<int64_t, int64_t>, Choices> choices;
  std::vector<Difference> differences;

  Layer& at(int64_t layer) {
    if (static_cast<size_t>(layer) >= layers.size()) layers.resize(static_cast<size_t>(layer) + 1);
    return layers[static_cast<size_t>(layer)];
  }
  // Over all layers that have loads: the mean of max / mean load, and the dropped share of all choices.
  double imbalance() const;
  double dropped_share() const;
  double balance_loss() const;  // mean over the layers
  double z_loss() const;
};

// max / mean; 1 where nothing was routed.
double imbalance_of(const std::vector<int64_t>& load);

}  // namespace ninefold
