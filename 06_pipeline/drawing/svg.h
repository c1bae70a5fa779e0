// A simulated schedule as a picture: time to the right, a row a rank, bubbles hatched.
#pragma once

#include <string>
#include <string_view>

#include "06_pipeline/schedule/simulate.h"

namespace ninefold::pipeline {

// An SVG document. Every action is a box as wide as it lasts, labelled with its micro-batch where there is room, with
// its full text and its times as tooltip; a rank's stages have lighter shades the later they come in the model. Beside
// a row stands the rank's peak of live micro-batches.
std::string svg_of(const CheckedSchedule& schedule, const Simulation& simulation, std::string_view title);

}  // namespace ninefold::pipeline
