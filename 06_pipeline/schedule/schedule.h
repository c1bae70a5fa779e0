// A pipeline schedule is a table: one row a rank, and in it the actions of the rank from left to right.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "06_pipeline/schedule/action.h"

namespace ninefold::pipeline {

// The cells of a rank. Empty ones only make the table look like time; they are skipped.
using Row = std::vector<std::optional<Action>>;

// rows[rank]. May still be wrong: what runs and what is measured is a CheckedSchedule.
using Schedule = std::vector<Row>;

struct Place {
  int rank = 0;
  int column = 0;

  friend bool operator==(const Place&, const Place&) = default;
};

// "row 3 (rank 2), column 7": counted from 1, as spreadsheets do.
std::string text_of(const Place& place);

}  // namespace ninefold::pipeline
