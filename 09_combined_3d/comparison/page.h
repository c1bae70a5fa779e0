// A comparison as one HTML page with plots, which opens without a network: styles, data, and the distribution's
// Chart.js (https://www.chartjs.org, MIT licence, notice kept) are in it.
#pragma once

#include <string>

#include "09_combined_3d/comparison/results.h"

namespace ninefold::comparison {

// Throws UserError where Chart.js is not installed. To be called before long work.
void require_page_parts();

std::string page_of(const Results& results);

}  // namespace ninefold::comparison
