// What sharding will cost, from the layout of the units and the policy alone: the bytes of each kind of memory on every
// rank, and the bytes sent.
#pragma once

#include <vector>

#include "03_zero_fsdp/layout.h"
#include "03_zero_fsdp/policy.h"
#include "common/comm/traffic.h"
#include "common/tensor/memory.h"

namespace ninefold {

// The order in which the forward enters and leaves the layers that belong to units. A place is one such layer, counted
// from 0 in the order of entering; the backward goes the whole way back.
class Walk {
 public:
  // `root`: the index of the root unit, which stays gathered from its first layer's forward to that layer's backward; -1
  // where there is none.
  explicit Walk(int root = -1) : root_(root) {}
  // Building it: a layer of `unit` begins, and ends.
  size_t enter(size_t unit);
  void leave(size_t place) { visits_.push_back({place, false}); }

  size_t places() const { return units_.size(); }
  size_t unit_at(size_t place) const { return units_[place]; }
  // The `count` units that come after, or before, the unit at a place: those that are to be gathered ahead.
  std::vector<size_t> after(size_t place, int64_t count) const;
  std::vector<size_t> before(size_t place, int64_t count) const;
  bool is_first_of_unit(size_t place) const;
  bool keeps_after_forward(size_t place, Reshard reshard, bool backward_follows) const;

  // Places in the order in which they are entered and left.
  struct Visit {
    size_t place;
    bool enters;
  };
  const std::vector<Visit>& visits() const { return visits_; }

 private:
  bool is_last_unit(size_t unit) const;
  int root_;
  std::vector<size_t> units_;  // of each place
  std::vector<Visit> visits_;
};

// Bytes per rank while a step of `micro_batches` is trained: parameters, gradients, gathered and host.
void predict_memory(MemoryByKind& bytes, const std::vector<UnitLayout>& units, const Walk& walk,
                    const ShardingPolicy& policy, int64_t micro_batches);

// What one rank calls and sends in one step, one entry a call.
struct Traffic {
  int64_t all_gathers = 0, all_gather_bytes = 0;
  int64_t reduce_scatters = 0, reduce_scatter_bytes = 0;
};
Traffic predict_traffic(const std::vector<UnitLayout>& units, const Walk& walk, const ShardingPolicy& policy,
                        int64_t micro_batches);

}  // namespace ninefold
