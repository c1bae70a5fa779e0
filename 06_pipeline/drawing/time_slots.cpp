#include "06_pipeline/drawing/time_slots.h"

#include <fmt/format.h>

#include <algorithm>

namespace ninefold::pipeline {
namespace {

// One character wider than `width`, for a gap between cells; a B fills the gap and its second cell.
std::string cell_text(const Row& row, size_t column, size_t width) {
  const auto is_backward = [&](size_t at) { return at < row.size() && row[at] && row[at]->kind == Kind::backward; };
  if (is_backward(column)) return fmt::format("{:-<{}}", text_of(*row[column]), width + 1);
  if (column > 0 && is_backward(column - 1)) return std::string(width, '-') + ' ';
  const bool is_idle = column >= row.size() || !row[column];
  return fmt::format("{:<{}}", is_idle ? "." : text_of(*row[column]), width + 1);
}

}  // namespace

Schedule in_time_slots(const CheckedSchedule& schedule) {
  Schedule slots(schedule.ranks());
  std::map<Action, size_t> ended;
  for (const auto& [rank, index] : schedule.order()) {
    const Action& action = schedule.tasks(rank)[index].action;
    const size_t length = action.kind == Kind::backward ? 2 : 1;
    size_t start = slots[rank].size();
    for (const Action& need : schedule.needs(action)) start = std::max(start, ended.at(need));
    slots[rank].resize(start + length);
    slots[rank][start] = action;
    if (!action.is_of_whole_stage()) ended[action] = start + length;
  }
  return slots;
}

std::string grid_of(const Schedule& slots, int width) {
  size_t columns = 0, cell = 1;
  for (const Row& row : slots) {
    columns = std::max(columns, row.size());
    for (const auto& action : row) {
      if (action) cell = std::max(cell, text_of(*action).size());
    }
  }
  const size_t margin = fmt::format("rank {}  ", slots.size() - 1).size();
  const size_t block = std::max<size_t>((width - margin) / (cell + 1), 1);
  std::string text;
  for (size_t first = 0; first < columns; first += block) {
    if (first > 0) text += '\n';
    for (size_t rank = 0; rank < slots.size(); ++rank) {
      std::string line = fmt::format("{:<{}}", fmt::format("rank {}", rank), margin);
      for (size_t column = first; column < std::min(first + block, columns); ++column) {
        line += cell_text(slots[rank], column, cell);
      }
      text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    }
  }
  return text;
}

}  // namespace ninefold::pipeline
