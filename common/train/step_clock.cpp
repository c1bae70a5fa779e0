#include "common/train/step_clock.h"

#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "common/comm/control.h"
#include "common/comm/virtual_time.h"

namespace ninefold {

StepClock::StepClock(World& world) : world_(world), clock_(largest_clock()), waited_{waited()} {}

StepClock::Waited StepClock::waited() const {
  const VirtualTime* const time = world_.virtual_time();
  return {world_.waited(), time ? time->exposed() : std::map<std::string, double>()};
}

double StepClock::largest_clock() const {
  if (!world_.virtual_clock()) return 0;
  const auto clocks = control::all_gather(world_.group(), world_.virtual_clock()->now());
  return *std::max_element(clocks.begin(), clocks.end());
}

double StepClock::end_step() {
  waited_.push_back(waited());
  const double before = std::exchange(clock_, largest_clock());
  return (clock_ - before) * 1e3;
}

ExposedCommunication StepClock::exposed() const {
  const size_t steps = waited_.size() - 1, first = first_counted(steps);
  if (steps == 0) return {};
  const double to_milliseconds = 1e3 / static_cast<double>(steps - first);
  ExposedCommunication own{.wall_milliseconds = (waited_.back().wall - waited_[first].wall) * to_milliseconds};
  for (auto [dimension, seconds] : waited_.back().by_dimension) {
    const auto before = waited_[first].by_dimension.find(dimension);
    if (before != waited_[first].by_dimension.end()) seconds -= before->second;
    own.by_dimension[dimension] = seconds * to_milliseconds;
    own.virtual_milliseconds += own.by_dimension[dimension];
  }

  const auto walls = control::all_gather(world_.group(), own.wall_milliseconds);
  const auto virtuals = control::all_gather(world_.group(), own.virtual_milliseconds);
  const auto most = std::max_element(virtuals.begin(), virtuals.end());
  const std::string theirs = control::broadcast_bytes(world_.group(), nlohmann::json(own.by_dimension).dump(),
                                                      static_cast<int>(most - virtuals.begin()));
  return {*std::max_element(walls.begin(), walls.end()), *most,
          nlohmann::json::parse(theirs).get<std::map<std::string, double>>()};
}

}  // namespace ninefold
