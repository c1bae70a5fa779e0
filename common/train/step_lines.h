// What a run prints of each step: one aligned line.
#pragma once

#include <string>

#include "common/train/books.h"

namespace ninefold {

// The names of the columns of the record's last step. `scales`: losses are scaled, which has a column.
std::string step_heading(const RunRecord& record, bool scales);

// The last step of the record. `peak`: of matmuls, in FLOP/s; 0 where it was not measured.
std::string step_line(const RunRecord& record, bool scales, double peak);

}  // namespace ninefold
