// The plan of a sharding: its units, what each holds, and the order in which their layers run. Pure data, made from a
// model without storage.
#pragma once

#include <string>
#include <vector>

#include "02_ddp/data_groups.h"
#include "03_zero_fsdp/layout.h"
#include "03_zero_fsdp/policy.h"
#include "common/nn/model.h"

namespace ninefold {

// The order in which the forward enters and leaves the layers that belong to units. A place is one such layer, counted
// from 0 in the order of entering; the backward goes the whole way back.
class Walk {
 public:
  // `root`: the index of the root unit, which stays gathered from its first layer's forward to that layer's backward;
  // -1 where there is none.
  explicit Walk(int root = -1) : root_(root) {}
  // Building it: a layer of `unit` begins, and ends. Returns its place.
  size_t enter(size_t unit);
  void leave(size_t place) { visits_.push_back({place, false}); }

  size_t unit_at(size_t place) const { return units_[place]; }
  // The `count` units that the forward, or the backward, enters after the one at a place: those to be gathered ahead.
  // The root is not among them while it is gathered anyway.
  std::vector<size_t> after(size_t place, int64_t count) const;
  std::vector<size_t> before(size_t place, int64_t count) const;
  bool is_first_of_unit(size_t place) const;
  // Whether the unit at a place is still needed whole when the layer there is left. Without a backward it is not, once
  // its last layer is.
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

struct UnitPlan {
  std::string name;
  std::string path;                    // of the layer that it is, "root" where it is none
  std::vector<Parameter*> parameters;  // in forward order
  // The unit's layers: their paths, and their places in the walk.
  struct Layer {
    std::string path;
    size_t place;
  };
  std::vector<Layer> layers{};
};

// Units in forward order. The root unit, "root", holds what no other does; it comes first, and is absent where it would
// be empty. Its layers are the model's own children. A layer with parameters of several groups is a unit for each.
struct ShardingPlan {
  std::vector<UnitPlan> units;
  Walk walk;
};

// `wrap` as in units.h. `groups`: over which each parameter will be divided. The model outlives the plan.
ShardingPlan plan_sharding(Model& model, const std::string& wrap, const DataGroups& groups = {});

// The layout of a unit, or of each, over `ranks` ranks.
UnitLayout layout_of(const UnitPlan& unit, int ranks);
std::vector<UnitLayout> layouts_of(const ShardingPlan& plan, int ranks);

}  // namespace ninefold
