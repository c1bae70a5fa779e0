#include "06_pipeline/schedule/csv.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/check.h"
#include "common/base/text.h"

namespace ninefold::pipeline {
namespace {

Row parse_row(std::string_view line, int rank, std::string_view name) {
  Row row;
  for (const std::string_view part : split(line, ',')) {
    const int column = static_cast<int>(row.size());
    const std::string_view cell = trimmed(part);
    row.emplace_back();
    if (!cell.empty()) row.back() = parse_action(cell, fmt::format("{}, {}", name, text_of(Place{rank, column})));
  }
  return row;
}

bool is_empty(const Row& row) {
  return std::none_of(row.begin(), row.end(), [](const auto& cell) { return cell.has_value(); });
}

}  // namespace

Schedule parse_csv(std::string_view content, std::string_view name) {
  Schedule schedule;
  for (const std::string_view line : split(content, '\n')) {
    schedule.push_back(parse_row(line, static_cast<int>(schedule.size()), name));
  }
  while (!schedule.empty() && is_empty(schedule.back())) schedule.pop_back();
  require(!schedule.empty(), "{} holds no action; a row lists a rank's actions, like 0F0,0B0", name);
  return schedule;
}

std::string csv_of(const Schedule& schedule) {
  size_t columns = 0;
  for (const Row& row : schedule) columns = std::max(columns, row.size());
  std::string text;
  for (const Row& row : schedule) {
    for (size_t column = 0; column < columns; ++column) {
      if (column > 0) text += ',';
      if (column < row.size() && row[column]) text += text_of(*row[column]);
    }
    text += '\n';
  }
  return text;
}

}  // namespace ninefold::pipeline
