#include "03_zero_fsdp/plan.h"

#include <algorithm>
#include <map>

#include "03_zero_fsdp/units.h"

namespace ninefold {
namespace {

constexpr std::string_view root_name = "root";

// The units that a path belongs to, outer ones first.
using UnitsAt = std::map<std::string, std::vector<size_t>>;

// Enters and leaves the layers of units as the forward does.
class Walker : public Visitor {
 public:
  Walker(ShardingPlan& plan, const UnitsAt& units_at) : plan_(plan), units_at_(units_at) {}

  void slot(std::string_view name, std::unique_ptr<Layer>& child) override { member(name, *child); }
  void member(std::string_view name, Layer& child) override {
    if (name.empty()) return child.visit(*this);  // what a wrapper holds has the wrapper's path
    const std::string outer = path_;
    if (!path_.empty() && !name.empty()) path_.push_back('.');
    path_.append(name);
    std::vector<size_t> places;
    const auto found = units_at_.find(path_);
    if (found != units_at_.end()) {
      for (const size_t unit : found->second) {
        places.push_back(plan_.walk.enter(unit));
        plan_.units[unit].layers.push_back({path_, places.back()});
      }
    }
    child.visit(*this);
    for (auto place = places.rbegin(); place != places.rend(); ++place) plan_.walk.leave(*place);
    path_ = outer;
  }

 private:
  ShardingPlan& plan_;
  const UnitsAt& units_at_;
  std::string path_;
};

// A unit of one flat buffer for each group that the parameters of `unit` have.
std::vector<UnitPlan> split_by_group(const UnitPlan& unit, const DataGroups& groups) {
  std::vector<UnitPlan> parts;
  std::vector<const Group*> group_of_part;
  for (Parameter* parameter : unit.parameters) {
    const Group* const group = &groups.of(*parameter);
    const auto found = std::find(group_of_part.begin(), group_of_part.end(), group);
    const auto part = static_cast<size_t>(found - group_of_part.begin());
    if (found == group_of_part.end()) {
      const bool is_first = parts.empty();
      parts.push_back({is_first ? unit.name : fmt::format("{} over {}", unit.name, group->name()), unit.path, {}});
      group_of_part.push_back(group);
    }
    parts[part].parameters.push_back(parameter);
  }
  return parts;
}

// A parameter belongs to the innermost layer that is a unit, and to the root where there is none.
std::vector<UnitPlan> assign_parameters(Model& model, const std::vector<std::string>& paths, const DataGroups& groups) {
  std::vector<UnitPlan> units = {{std::string(root_name), std::string(root_name), {}}};
  for (const std::string& path : paths) units.push_back({path, path, {}});
  for (Parameter* parameter : parameters_of(model)) {
    const auto holds = [&](const UnitPlan& unit) {
      return unit.name != root_name && is_below(parameter->name, unit.name);
    };
    const auto innermost = std::find_if(units.rbegin(), units.rend(), holds);
    (innermost == units.rend() ? units.front() : *innermost).parameters.push_back(parameter);
  }
  std::vector<UnitPlan> split;
  for (const UnitPlan& unit : units) {
    for (UnitPlan& part : split_by_group(unit, groups)) split.push_back(std::move(part));
  }
  return split;
}

std::vector<std::string> children_that_use(Model& model, const std::vector<Parameter*>& parameters) {
  std::vector<std::string> names;
  for (size_t child = 0; child < model.size(); ++child) {
    const auto used = parameters_used_by(model.child(child));
    const auto is_among = [&](const Parameter* parameter) {
      return std::count(parameters.begin(), parameters.end(), parameter) > 0;
    };
    if (std::any_of(used.begin(), used.end(), is_among)) names.push_back(model.name_of(child));
  }
  return names;
}

// The first `count` different units of [unit, end) that are neither *unit nor `gathered`.
template <typename Iterator>
std::vector<size_t> first_others(Iterator unit, Iterator end, int gathered, int64_t count) {
  std::vector<size_t> found;
  for (Iterator next = unit; next != end && static_cast<int64_t>(found.size()) < count; ++next) {
    const bool is_other = *next != *unit && static_cast<int>(*next) != gathered;
    if (is_other && std::count(found.begin(), found.end(), *next) == 0) found.push_back(*next);
  }
  return found;
}

}  // namespace

size_t Walk::enter(size_t unit) {
  units_.push_back(unit);
  visits_.push_back({units_.size() - 1, true});
  return units_.size() - 1;
}

std::vector<size_t> Walk::after(size_t place, int64_t count) const {
  const auto here = units_.begin() + static_cast<int64_t>(place);
  const bool has_root = std::find(units_.begin(), here, static_cast<size_t>(root_)) != here;
  return first_others(here, units_.end(), has_root ? root_ : -1, count);
}

std::vector<size_t> Walk::before(size_t place, int64_t count) const {
  std::vector<size_t> entered;  // from this place on, in the order of the backward: outer layers before those inside
  for (auto visit = visits_.rbegin(); visit != visits_.rend(); ++visit) {
    if (!visit->enters && (!entered.empty() || visit->place == place)) entered.push_back(units_[visit->place]);
  }
  return first_others(entered.begin(), entered.end(), root_, count);
}

bool Walk::is_first_of_unit(size_t place) const {
  return std::find(units_.begin(), units_.end(), units_[place]) == units_.begin() + static_cast<int64_t>(place);
}

bool Walk::is_last_unit(size_t unit) const {
  const auto is_not_root = [&](size_t one) { return static_cast<int>(one) != root_; };
  const auto last = std::find_if(units_.rbegin(), units_.rend(), is_not_root);
  return last != units_.rend() && *last == unit;
}

bool Walk::keeps_after_forward(size_t place, Reshard reshard, bool backward_follows) const {
  const size_t unit = units_[place];
  if (!backward_follows) return std::count(units_.begin() + static_cast<int64_t>(place) + 1, units_.end(), unit) > 0;
  if (static_cast<int>(unit) == root_) return true;
  return reshard == Reshard::never || (reshard == Reshard::standard && is_last_unit(unit));
}

ShardingPlan plan_sharding(Model& model, const std::string& wrap, const DataGroups& groups) {
  ShardingPlan plan{assign_parameters(model, unit_paths(model, wrap), groups), Walk()};
  UnitsAt units_at;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    const UnitPlan& planned = plan.units[unit];
    if (planned.path != root_name) {
      units_at[planned.path].push_back(unit);
      continue;
    }
    if (unit == 0) plan.walk = Walk(0);
    for (const std::string& child : children_that_use(model, planned.parameters)) units_at[child].push_back(unit);
  }
  Walker walker(plan, units_at);
  model.visit(walker);
  return plan;
}

UnitLayout layout_of(const UnitPlan& unit, int ranks) {
  std::vector<int64_t> sizes;
  for (const Parameter* parameter : unit.parameters) sizes.push_back(elements(parameter->layer_shape()));
  return UnitLayout(unit.name, ranks, std::move(sizes));
}

std::vector<UnitLayout> layouts_of(const ShardingPlan& plan, int ranks) {
  std::vector<UnitLayout> layouts;
  for (const UnitPlan& unit : plan.units) layouts.push_back(layout_of(unit, ranks));
  return layouts;
}

}  // namespace ninefold
