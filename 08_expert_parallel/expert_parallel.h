// Expert parallelism: each rank holds some of the experts, and tokens travel to where theirs are (Lepikhin et al. 2020,
// GShard, arXiv 2006.16668; Gale et al. 2022, MegaBlocks, arXiv 2211.15841).
//
//   rows of own tokens ── all_to_all ── by expert ── own experts ── by arrival ── all_to_all ── results, as the rows
//   were
//                          dispatch                                               combine
//
// In the backward the gradients of the results take the way of the rows, and the gradients of the rows that of the
// results. Ranks have different tokens: the dimension is one of data parallelism for everything but the experts, whose
// gradients hold the tokens of all ranks of the group when they leave the layer.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "08_expert_parallel/exchange.h"
#include "common/comm/group.h"
#include "common/nn/mixture_of_experts.h"
#include "common/nn/model.h"

namespace ninefold {

// What is left of an exchange for the books: rows of this rank's tokens to each rank, and rows from each rank.
struct ExchangedRows {
  std::vector<int64_t> sent, received;
};

// By the number of the mixture in the model, from 0.
using RowsOfLayers = std::map<int64_t, ExchangedRows>;
// Step and first sample.
using MicroBatchId = std::pair<int64_t, int64_t>;

class ExpertParallel {
 public:
  // `tensor`: the ranks that each expert is cut over; absent: none is.
  explicit ExpertParallel(Group group, std::optional<Group> tensor = std::nullopt)
      : group_(std::move(group)), tensor_(std::move(tensor)) {}

  const Group& group() const { return group_; }
  const std::optional<Group>& tensor() const { return tensor_; }
  // Whether anything is done at all.
  bool divides() const { return group_.size() > 1 || (tensor_ && tensor_->size() > 1); }
  // The rows of every mixture on this rank in each micro-batch that was trained: those are counted that the routers
  // chose, not those that were sent.
  const std::map<MicroBatchId, RowsOfLayers>& counted() const { return counted_; }
  // In those of the last step, by their first samples.
  std::map<int64_t, RowsOfLayers> counted_in_last_step() const;

  // A mixture of the model, the `layer`-th from 0, has planned its exchange.
  void count(int64_t layer, const ExchangePlan& plan, const Step& step);

 private:
  Group group_;
  std::optional<Group> tensor_;
  std::map<MicroBatchId, RowsOfLayers> counted_;
};

// Divides the experts of every mixture of the model over the ranks of the group, by ranges, and makes their rows
// travel. To be called on a model without storage, before what wraps whole layers. The placements of the experts'
// parameters name the group's mesh dimension. With `tensor`, whose ranks have the same tokens, each expert is also cut
// over that group. The model must not outlive what is returned. Throws UserError where the experts do not divide. In
// groups of one rank nothing changes.
std::unique_ptr<ExpertParallel> expert_parallel(Model& model, const Group& group,
                                                const std::optional<Group>& tensor = std::nullopt);

// The experts of one rank behind an exchange of rows.
// forward:  all_gather of counts, all_to_all of rows, all_to_all of results
// backward: all_to_all of the results' gradients, all_to_all of the rows'
class ExchangedExperts : public Experts {
 public:
  // `inner` computes with this rank's range of the experts. `layer` counts the mixtures of the model from 0.
  ExchangedExperts(std::unique_ptr<Experts> inner, ExpertParallel& parallel, int64_t layer)
      : inner_(std::move(inner)), parallel_(parallel), layer_(layer) {}
  Tensor forward(const Tensor& rows, const RowCounts& counts, Saved& saved) override;
  Tensor backward(const Tensor& dresults, Saved& saved) override;
  void visit(Visitor& visitor) override { inner_->visit(visitor); }

 private:
  // The plan of one forward, with what the device needs of it.
  struct Exchange;
  std::shared_ptr<const Exchange> agree(const Tensor& rows, const RowCounts& counts, const Step& step);
  // From rows of own tokens to rows of own experts, in their order; and back.
  Tensor dispatch(const Tensor& rows, const Exchange& exchange) const;
  Tensor combine(Tensor results, const Exchange& exchange) const;

  std::unique_ptr<Experts> inner_;
  ExpertParallel& parallel_;
  int64_t layer_;
};

}  // namespace ninefold
