// A schedule as a grid: the table with empty cells put in, so that a column is a moment.
#pragma once

#include <string>

#include "06_pipeline/schedule/checked.h"

namespace ninefold::pipeline {

// Every action as early as it can be, if each took one slot and a B two (its second one stays empty). Gives a table
// that is read, written and checked like any other.
Schedule in_time_slots(const CheckedSchedule& schedule);

// The table for the terminal, cut into blocks that are at most `width` characters wide: a line a rank, "." where it is
// idle, "-" where a B goes on.
std::string grid_of(const Schedule& slots, int width = 120);

}  // namespace ninefold::pipeline
