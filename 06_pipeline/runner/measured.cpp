#include "06_pipeline/runner/measured.h"

#include <map>

#include "common/base/median.h"

namespace ninefold::pipeline {

std::vector<StageTimes> stage_times(const std::vector<Computations::Steps>& ranks, int stages) {
  std::map<std::pair<int, char>, std::vector<double>> found;
  for (const Computations::Steps& steps : ranks) {
    for (const auto& actions : steps) {
      for (const Computation& action : actions) found[{action.stage, action.kind}].push_back(1e3 * action.seconds());
    }
  }
  std::vector<StageTimes> times;
  for (int stage = 0; stage < stages; ++stage) {
    const double whole = median(found[{stage, 'B'}]), first = median(found[{stage, 'I'}]);
    times.push_back({.forward = median(found[{stage, 'F'}]),
                     .input_gradient = first > 0 ? first : whole / 2,
                     .weight_gradient = first > 0 ? median(found[{stage, 'W'}]) : whole / 2});
  }
  return times;
}

}  // namespace ninefold::pipeline
