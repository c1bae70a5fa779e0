#include "06_pipeline/schedule/peak.h"

#include <algorithm>

namespace ninefold::pipeline {

Peak peak_of(const CheckedSchedule& schedule, int rank, double kept_for_weights) {
  Peak peak;
  int awaiting_backward = 0, awaiting_weights = 0;
  for (const Task& task : schedule.tasks(rank)) {
    awaiting_backward += task.action.kind == Kind::forward;
    awaiting_backward -= task.action.gives_input_gradient();
    awaiting_weights += task.action.kind == Kind::input_gradient;
    awaiting_weights -= task.action.kind == Kind::weight_gradient;
    peak.live = std::max(peak.live, awaiting_backward + awaiting_weights);
    peak.activations = std::max(peak.activations, awaiting_backward + kept_for_weights * awaiting_weights);
  }
  return peak;
}

}  // namespace ninefold::pipeline
