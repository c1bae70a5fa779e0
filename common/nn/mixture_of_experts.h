// A feed-forward of many experts, of which each token visits a few (Shazeer et al. 2017, arXiv 1701.06538).
//
//   x ── router ── plan ─────────────────────┐
//   └─ rows of expert 0, 1, … ── experts ── gates · results, added up per token ── (+ shared experts) ── y
//
// The plan is pure data (routing.h). What computes the rows is a slot of its own, `experts`, and knows neither tokens
// nor gates: a technique that spreads experts over ranks wraps it, sends rows to where their expert lives and returns
// the results in the order in which the rows came. Nothing else changes.
#pragma once

#include "common/nn/layer.h"
#include "common/nn/router.h"

namespace ninefold {

// The counts of rows, [E]; shared because forward, backward and deferred work need them.
using RowCounts = std::shared_ptr<const std::vector<int64_t>>;

class Experts {
 public:
  virtual ~Experts() = default;
  // rows [m, dim]: first the counts[0] rows of expert 0, then those of expert 1, …; any count may be 0. Returns [m,
  // dim] in the same order.
  virtual Tensor forward(const Tensor& rows, const RowCounts& counts, Saved& saved) = 0;
  // The gradient of what forward returned; returns that of the rows.
  virtual Tensor backward(const Tensor& dresults, Saved& saved) = 0;
  virtual void visit(Visitor&) {}
};

// Expert e computes w2[e] (silu(w1[e] row) * w3[e] row). Weights of all experts lie in one tensor each: w1 and w3
// [experts, hidden, dim], w2 [experts, dim, hidden]; expert e's is the e-th consecutive part, so that a rank may hold a
// range of them (a shard of dimension 0), and checkpoints name them one by one. The number of experts here follows from
// the tensors.
class GroupedExperts : public Experts {
 public:
  GroupedExperts(int64_t experts, int64_t dim, int64_t hidden, ops::Distribution in_initial,
                 ops::Distribution out_initial);
  Tensor forward(const Tensor& rows, const RowCounts& counts, Saved& saved) override;
  Tensor backward(const Tensor& dresults, Saved& saved) override;
  void visit(Visitor& visitor) override;

  Parameter w1, w3, w2;

 private:
  Tensor hidden(const Tensor& rows, const RowCounts& counts, Saved& saved);
  ops::SwigluGradients hidden_backward(const Tensor& dresults, const RowCounts& counts, Saved& saved);
};

// Slots router, experts and, if there are any, shared_experts. x [tokens, dim] -> [tokens, dim].
class MixtureOfExperts : public Layer {
 public:
  // `layer` counts the mixtures of the model from 0.
  MixtureOfExperts(const MoeConfig& config, int64_t layer, std::unique_ptr<Router> router,
                   std::unique_ptr<Experts> experts, std::unique_ptr<Layer> shared_experts = nullptr);
  Tensor forward(const Tensor& x, Saved& saved) override;
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override;
  Tensor backward(const Tensor& dy, Saved& saved) override;
  void visit(Visitor& visitor) override;

 private:
  // The plan of one forward, with what the device needs of it.
  struct Dispatch;
  std::shared_ptr<const Dispatch> dispatch(const Tensor& x, const Routing& routing, Saved& saved) const;
  void book(const DispatchPlan& plan, const Step& step) const;

  MoeConfig config_;
  int64_t layer_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<Experts> experts_;
  std::unique_ptr<Layer> shared_experts_;
};

}  // namespace ninefold
