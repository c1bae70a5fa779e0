// Experts whose every expert is cut over the ranks of a group, as chapter 05 cuts a feed-forward: w1 and w3 by output
// features, w2 by input features. All ranks of the group have the same rows.
#pragma once

#include "05_tensor_parallel/conjugates.h"
#include "common/nn/mixture_of_experts.h"

namespace ninefold {

// forward:  identity, all_reduce of results
// backward: identity, all_reduce of the rows' gradients
class DividedExperts : public Experts {
 public:
  // `inner` has the parameters w1, w3 and w2 of GroupedExperts, without storage. Throws UserError where their hidden
  // features do not divide.
  DividedExperts(std::unique_ptr<Experts> inner, const Group& group);
  Tensor forward(const Tensor& rows, const RowCounts& counts, Saved& saved) override;
  Tensor backward(const Tensor& dresults, Saved& saved) override;
  void visit(Visitor& visitor) override { inner_->visit(visitor); }

 private:
  std::unique_ptr<Experts> inner_;
  LayerEnd input_, output_;
};

}  // namespace ninefold
