// A comparison as a table for the terminal, and as CSV and JSON for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "09_combined_3d/comparison/results.h"

namespace ninefold::comparison {

// Aligned columns, one line a row, and below them what the columns mean; then, where there are any, the points of the
// scaling figures.
std::string table_text(const Results& results);

// A header, then one line a row, or a line a point where there are no rows. Bytes, milliseconds and tokens per second
// are plain numbers, efficiencies fractions; what there is not is empty.
std::string csv_text(const Results& results);

// The same and more: every kind of memory, the profiles, the command of each row.
nlohmann::ordered_json json_of(const Results& results);

}  // namespace ninefold::comparison
