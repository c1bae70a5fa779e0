// How much a rank must remember: the reason why schedules differ in more than their bubble.
#pragma once

#include "06_pipeline/schedule/checked.h"

namespace ninefold::pipeline {

struct Peak {
  // Micro-batches (of any of its stages, each counted) whose forward has begun and whose backward has not ended, W
  // included.
  int live = 0;
  // Their activations, in units of what one stage keeps of one micro-batch: 1 from the forward to the input gradient,
  // `kept_for_weights` from then to the weight gradient.
  double activations = 0;
};

// Follows from the order of the rank's actions alone, whatever time they take. `kept_for_weights` is the part of the
// activations, with the gradients saved beside them, that waits for a deferred W.
Peak peak_of(const CheckedSchedule& schedule, int rank, double kept_for_weights = 1);

}  // namespace ninefold::pipeline
