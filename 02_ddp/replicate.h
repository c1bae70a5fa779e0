// Data parallelism: every rank holds the whole model and handles its own part of the batch; the gradients are summed
// over the ranks. The forms differ only in when and in how many pieces they are summed:
//   naive   one all_reduce per parameter, after the backward
//   flat    all gradients are views into one buffer, and there is one all_reduce
// Sums, not averages: each rank's loss was already divided by the global number of targets.
// (Li et al. 2020, PyTorch Distributed, arXiv 2006.15704)
#pragma once

#include "common/comm/group.h"
#include "common/comm/traffic.h"
#include "common/nn/model.h"

namespace ninefold {

enum class DdpVariant { naive, flat };

class Replicated {
 public:
  // To be called before `materialize`: under `flat` it lays the gradients, of type `gradient`, into one buffer.
  // `model` and `device` outlive it.
  Replicated(Model& model, const Group& group, DdpVariant variant, const DeviceHandle& device, Dtype gradient);

  // Sums the gradients over the group: forward nothing, after the backward all_reduce.
  void reduce_gradients() const;

  // Books what `steps` steps send: 2 (n-1)/n of the gradients' bytes each, in one call per parameter or in one. A group
  // of one rank sends nothing.
  void predict_traffic(TrafficLedger& ledger, int64_t steps) const;

 private:
  std::vector<Parameter*> parameters_;
  Group group_;
  Dtype gradient_;
  Tensor flat_;  // undefined under naive
};

}  // namespace ninefold
