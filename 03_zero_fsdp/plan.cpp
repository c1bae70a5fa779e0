#include "03_zero_fsdp/plan.h"

#include <algorithm>
#include <map>

#include "03_zero_fsdp/units.h"

namespace ninefold {
namespace {

constexpr std::string_view root_name = "root";

// Enters and leaves the layers of units as the forward does.
class Walker : public Visitor {
 public:
  // `unit_of`: the unit that a path belongs to.
  Walker(ShardingPlan& plan, const std::map<std::string, size_t>& unit_of) : plan_(plan), unit_of_(unit_of) {}

  void slot(std::string_view name, std::unique_ptr<Layer>& child) override { member(name, *child); }
  void member(std::string_view name, Layer& child) override {
    if (name.empty()) return child.visit(*this);  // what a wrapper holds has the wrapper's path
    const std::string outer = path_;
    if (!path_.empty() && !name.empty()) path_.push_back('.');
    path_.append(name);
    const auto found = unit_of_.find(path_);
    if (found == unit_of_.end()) {
      child.visit(*this);
    } else {
      const size_t place = plan_.walk.enter(found->second);
      plan_.units[found->second].layers.push_back({path_, place});
      child.visit(*this);
      plan_.walk.leave(place);
    }
    path_ = outer;
  }

 private:
  ShardingPlan& plan_;
  const std::map<std::string, size_t>& unit_of_;
  std::string path_;
};

// A parameter belongs to the innermost layer that is a unit, and to the root where there is none.
std::vector<UnitPlan> assign_parameters(Model& model, const std::vector<std::string>& paths) {
  std::vector<UnitPlan> units = {{std::string(root_name), {}, {}}};
  for (const std::string& path : paths) units.push_back({path, {}, {}});
  for (Parameter* parameter : parameters_of(model)) {
    const auto holds = [&](const UnitPlan& unit) {
      return unit.name != root_name && is_below(parameter->name, unit.name);
    };
    const auto innermost = std::find_if(units.rbegin(), units.rend(), holds);
    (innermost == units.rend() ? units.front() : *innermost).parameters.push_back(parameter);
  }
  std::erase_if(units, [](const UnitPlan& unit) { return unit.parameters.empty(); });
  return units;
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

ShardingPlan plan_sharding(Model& model, const std::string& wrap) {
  ShardingPlan plan{assign_parameters(model, unit_paths(model, wrap)), Walk()};
  std::map<std::string, size_t> unit_of;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    if (plan.units[unit].name != root_name) unit_of[plan.units[unit].name] = unit;
  }
  if (!plan.units.empty() && plan.units.front().name == root_name) {
    plan.walk = Walk(0);
    const auto& parameters = plan.units.front().parameters;
    const auto is_of_root = [&](const Parameter* parameter) {
      return std::count(parameters.begin(), parameters.end(), parameter) > 0;
    };
    for (size_t child = 0; child < model.size(); ++child) {
      const auto used = parameters_used_by(model.child(child));
      if (std::any_of(used.begin(), used.end(), is_of_root)) unit_of[model.name_of(child)] = 0;
    }
  }
  Walker walker(plan, unit_of);
  model.visit(walker);
  return plan;
}

std::vector<UnitLayout> layouts_of(const ShardingPlan& plan, int ranks) {
  std::vector<UnitLayout> layouts;
  for (const UnitPlan& unit : plan.units) {
    std::vector<int64_t> sizes;
    for (const Parameter* parameter : unit.parameters) sizes.push_back(elements(parameter->layer_shape()));
    layouts.emplace_back(unit.name, ranks, std::move(sizes));
  }
  return layouts;
}

}  // namespace ninefold
