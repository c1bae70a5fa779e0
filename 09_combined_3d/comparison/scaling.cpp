#include "09_combined_3d/comparison/progress_line.h"
#include "common/base/check.h"

namespace ninefold::comparison {
namespace {

Workload scaled(const Workload& work, const std::string& scaling, int ranks) {
  Workload result = work;
  if (scaling == "weak") result.batch *= ranks;
  return result;
}

bool is_drawn(const Technique& technique) {
  return technique.scales || (technique.is_baseline() && !technique.has_experts);
}

// The lines of the figures, on each number of ranks that they fit.
std::vector<ScalingPoint> points_of(const std::string& scaling, int most, const Workload& work,
                                    const std::string& only) {
  std::vector<ScalingPoint> points;
  for (int ranks = 1; ranks <= most; ranks *= 2) {
    const Workload here = scaled(work, scaling, ranks);
    for (const Technique& technique : techniques_on(ranks, here).rows) {
      const bool is_wanted = is_drawn(technique) && (technique.is_baseline() || is_selected(technique, only));
      if (technique.ranks() != ranks || !is_wanted) continue;
      points.push_back({.profile = {}, .technique = technique, .batch = here.batch, .length = here.length});
    }
  }
  return points;
}

// `serial` is that of the profile, and learnt from its own point.
void measure_point(ScalingPoint& point, const Workload& work, const Profile& profile, const Settings& settings,
                   std::optional<Speed>& serial) {
  Workload here = work;
  here.batch = point.batch;
  try {
    const Speed speed = virtual_speed(point.technique, here, profile, settings);
    if (point.technique.is_baseline()) serial = speed;
    point.figures = {.speed = speed,
                     .efficiency = efficiency(speed, point.technique.ranks(), serial ? &*serial : nullptr)};
  } catch (const UserError& error) {
    point.failure = error.what();
  }
}

}  // namespace

std::vector<ScalingPoint> measure_scaling(const std::string& scaling, int most, const Workload& work,
                                          const std::string& only, const std::vector<Profile>& profiles,
                                          const Settings& settings) {
  const std::vector<ScalingPoint> each = points_of(scaling, most, work, only);
  std::vector<ScalingPoint> points;
  for (const Profile& profile : profiles) {
    std::optional<Speed> serial;
    for (ScalingPoint point : each) {
      point.profile = profile.name;
      const ProgressLine line(points.size() + 1, each.size() * profiles.size(),
                              fmt::format("{}: {} x {}", profile.name, point.technique.ranks(), point.technique.name));
      measure_point(point, work, profile, settings, serial);
      line.end(point.figures, point.failure);
      points.push_back(std::move(point));
    }
  }
  return points;
}

}  // namespace ninefold::comparison
