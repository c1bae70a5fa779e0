// The router of a mixture of experts: scores every expert for every token, chooses, and learns from what became of it.
#pragma once

#include <memory>
#include <utility>

#include "common/nn/layer.h"
#include "common/nn/routing.h"

namespace ninefold {

class Router {
 public:
  virtual ~Router() = default;
  // x [n, dim]. Books loads in saved.step().routing, unless this is a recomputation. Deterministic: the same x gives
  // the same choices, and each has its place. On meta: chosen, gates and places are empty.
  virtual Routing forward(const Tensor& x, Saved& saved) = 0;
  // dgates f32 [n, k], of choices that were dropped 0. Adds what the auxiliary losses ask for; returns dx [n, dim].
  virtual Tensor backward(const Tensor& dgates, Saved& saved) = 0;
  // After an optimizer step, with the loads of the whole global batch: for routers that learn from them.
  virtual void update_bias(const RoutingRecord& /*loads*/) {}
  // To be called before the first forward where this rank has some rows of each sequence only: what a router knows of
  // sequences, whom full experts drop and how even loads are, it finds of whole ones.
  virtual void share_sequences(std::shared_ptr<const WholeSequences> /*sequences*/) {}
  virtual void visit(Visitor&) {}
};

// weight [experts, dim]; logits = x weightᵀ in f32 whatever the type of x. With Balance::bias a buffer `bias`
// [experts], f32, from 0. Scores, choices and gates are computed on the host: n · experts numbers.
//
// What it adds to the loss, of L layers, S sequences of T tokens in the global batch:
//   balance   coefficient · mean over layers and sequences of E · sum_e f_e P_e, where f_e is the share of the
//             sequence's tokens that chose expert e (the sum over e is k) and P_e the mean of its normalised scores;
//             k where experts are evenly loaded. With BalanceScope::batch: one f and one P of all layers and tokens of
//             a forward, averaged over the forwards by their tokens.
//   z         coefficient · mean over layers and tokens of (log sum_e exp(logit_e))².
// Both are means over the global batch, as the cross-entropy is: no loss is divided again.
class TopKRouter : public Router {
 public:
  // `layer` counts the mixtures of the model, `layers` of them, from 0.
  TopKRouter(const MoeConfig& config, int64_t dim, int64_t layer, int64_t layers, ops::Distribution initial);
  Routing forward(const Tensor& x, Saved& saved) override;
  Tensor backward(const Tensor& dgates, Saved& saved) override;
  void visit(Visitor& visitor) override;

  // bias += rate where the load is below the mean, -= rate where above. Does nothing without Balance::bias.
  void update_bias(const RoutingRecord& loads) override;
  void share_sequences(std::shared_ptr<const WholeSequences> sequences) override { sequences_ = std::move(sequences); }

  Parameter weight;
  std::optional<Buffer> bias;

 private:
  // The choices of this rank's rows, and those of whole sequences: the same where no other rank has some of them.
  struct Choices {
    std::vector<int32_t> own;
    RoutingRecord::Choices whole;
  };
  // Chooses by the logits [n, experts], makes gates, and says whom full experts drop.
  Choices decide(const std::vector<float>& logits, Routing& routing, Step& step) const;
  // Of each token, by the scores to choose by, [n, experts]: the step's replayed choices, or else the best.
  std::vector<int32_t> choose(const std::vector<float>& choosing, Step& step) const;
  // Chosen experts, and gates where they decide who is dropped, of whole sequences.
  Routing whole_of(const Routing& own, const Step& step) const;
  // Places of the choices of whole sequences: the step's replayed ones, or else those of the policy, which are written
  // into `whole` in any case.
  std::vector<int32_t> place(Routing& whole, Step& step) const;
  using Part = std::vector<int32_t> RoutingRecord::Choices::*;
  // That part of the step's replayed choices, `size` numbers, of all sequences of a forward.
  std::vector<int32_t> replayed(Part part, size_t size, const Step& step) const;
  void book_difference(int64_t token, double gap, Step& step) const;
  bool drops_by_gate() const { return config_.capacity_factor && config_.drop_policy == DropPolicy::probs; }
  void book(const Choices& choices, Step& step) const;
  // Rows of a whole sequence.
  int64_t length(const Step& step) const { return step.rows_per_sample * (sequences_ ? sequences_->ranks() : 1); }
  // The share of tokens that chose each expert, [experts], for the balancing loss of sequence `sequence`.
  std::vector<double> shares_of_load(const std::vector<int32_t>& whole, int64_t sequence, const Step& step) const;
  // [n, experts]
  std::vector<float> logit_gradients(const std::vector<float>& logits, const Choices& choices,
                                     const std::vector<float>& dgates, Step& step) const;

  MoeConfig config_;
  int64_t layer_, layers_;
  std::shared_ptr<const WholeSequences> sequences_;
};

}  // namespace ninefold
