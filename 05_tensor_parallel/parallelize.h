// Divides a model over the ranks of a group as a plan says, by replacing and wrapping its layers by name.
#pragma once

#include <memory>
#include <vector>

#include "05_tensor_parallel/resolve.h"
#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/nn/model.h"

namespace ninefold {

// What is left to be done in every step: some gradients are still sums to be made over the group, those of norms that
// compute on rows, and of heads that several ranks hold.
class TensorParallel {
 public:
  explicit TensorParallel(Group group) : group_(std::move(group)) {}

  // After the data ranks' reduction. One all_reduce over the group for all norms, one over the holders of each head.
  void reduce_gradients() const;
  void predict_traffic(TrafficLedger& ledger, int64_t steps) const;

 private:
  friend std::unique_ptr<TensorParallel> parallelize(Model&, const Group&, const Plan&);
  struct PartialSums {
    Group group;
    std::vector<Parameter*> parameters;
    int64_t elements() const;  // that this rank owns
  };
  void find_partial_sums(Model& model, const ResolvedPlan& resolved);
  Group group_;
  std::vector<PartialSums> partial_;
};

// To be called on a model without storage. The placements of its parameters name the group's mesh dimension. Throws
// UserError where the plan does not fit. All ranks of the world call it.
std::unique_ptr<TensorParallel> parallelize(Model& model, const Group& group, const Plan& plan);

}  // namespace ninefold
