// Schedules as files that PyTorch's pipelining and spreadsheets read too: row = rank, column = time slot.
//
//   0F0,0F1,   ,0B0,0B1
//      ,1F0,1B0,1F1,1B1
#pragma once

#include <string>
#include <string_view>

#include "06_pipeline/schedule/schedule.h"

namespace ninefold::pipeline {

// `name` stands for the file in sentences. Throws UserError, with row and column, for a cell that is no action. Empty
// lines at the end do not count.
Schedule parse_csv(std::string_view content, std::string_view name);

// All rows of equal length.
std::string csv_of(const Schedule& schedule);

}  // namespace ninefold::pipeline
