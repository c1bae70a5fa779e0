#include "09_combined_3d/comparison/write.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "common/base/report.h"

namespace ninefold::comparison {
namespace {

std::string bytes_or_dash(std::optional<double> bytes) { return bytes ? human_bytes(*bytes) : "-"; }

std::string percent_or_dash(std::optional<double> share) { return share ? fmt::format("{:.0f} %", 100 * *share) : "-"; }

// A rank whose clock is behind the others' may wait for longer than their step.
std::string exposed_text(const Speed& speed) {
  return percent_or_dash(std::min(1.0, speed.exposed_milliseconds / speed.milliseconds));
}

std::string traffic_text(const Row& row) {
  std::vector<std::string> parts;
  for (const auto& [dimension, bytes] : row.traffic)
    parts.push_back(fmt::format("{} {}", dimension, human_bytes(bytes)));
  return parts.empty() ? "-" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string difference_text(const Row& row) {
  if (!row.loss_difference || row.technique.is_baseline()) return "-";
  if (*row.loss_difference == 0) return "same";
  return fmt::format("{:.0e}", *row.loss_difference);
}

std::vector<std::string> cells_of(const Row& row, const std::vector<Profile>& profiles) {
  std::vector<std::string> cells = {row.technique.name, mesh_text(row.technique), difference_text(row)};
  if (row.here) {
    const Speed& speed = row.here->speed;
    cells.push_back(human_count(speed.tokens_per_second));
    cells.push_back(percent_or_dash(row.here->efficiency));
    cells.push_back(exposed_text(speed));
    cells.push_back(percent_or_dash(speed.bubble));
  } else {
    cells.insert(cells.end(), 4, "-");
  }
  for (const std::string_view kind : memory_columns) cells.push_back(bytes_or_dash(find(row.memory, kind)));
  cells.push_back(bytes_or_dash(other_memory(row)));
  for (const Profile& profile : profiles) {
    const auto found = row.on.find(profile.name);
    const bool exists = found != row.on.end();
    cells.push_back(exists ? human_count(found->second.speed.tokens_per_second) : "-");
    cells.push_back(exists ? percent_or_dash(found->second.efficiency) : "-");
  }
  cells.push_back(traffic_text(row));
  return cells;
}

std::string rows_table(const Results& results) {
  std::vector<std::string> headers = {"technique", "mesh",   "loss off",  "tokens/s",  "efficiency",  "exposed",
                                      "bubble",    "params", "gradients", "optimizer", "activations", "other"};
  for (const Profile& profile : results.profiles) headers.insert(headers.end(), {profile.name, ""});
  headers.push_back("sent by rank 0 a step");
  Table table(std::move(headers));
  for (const Row& row : results.rows) table.add_row(cells_of(row, results.profiles));
  std::string text = table.text();
  for (const Row& row : results.rows) {
    if (!row.failure.empty()) text += fmt::format("failed: {}: {}\n", row.technique.name, row.failure);
    if (!row.note.empty()) text += fmt::format("{}: {}\n", row.technique.name, row.note);
  }
  for (const Misfit& one : results.left_out) text += fmt::format("left out: {}: {}\n", one.name, one.reason);
  return text;
}

std::string legend_text(const Results& results) {
  std::string text = fmt::format(
      "\nWall time on {} cores of {}. loss off: largest difference of any step's loss to the serial model's.\n"
      "efficiency: tokens/s of one rank times the ranks = 100 %. exposed: communication that nothing hides, and "
      "bubble: "
      "of a pipeline, both parts of the\nstep's time. Memory: of each kind the peak on the rank with most; other: "
      "gathered parameters, buffers of communication, workspace, data.\n",
      results.cores, results.processor);
  if (results.ranks > results.cores) {
    text += fmt::format("{} ranks share {} cores: their wall times are no measure of a technique.\n", results.ranks,
                        results.cores);
  }
  for (const Profile& profile : results.profiles) {
    text += fmt::format("{}: tokens/s and efficiency in virtual time. {}\n", profile.name, profile.note);
  }
  return text;
}

std::string points_table(const Results& results) {
  Table table(
      {"cluster", "technique", "ranks", "mesh", "batch", "ms/step", "tokens/s", "efficiency", "exposed", "bubble"});
  std::string failures;
  for (const ScalingPoint& point : results.points) {
    const auto& figures = point.figures;
    const Speed speed = figures ? figures->speed : Speed{};
    table.add_row({point.profile, point.technique.name, fmt::format("{}", point.technique.ranks()),
                   mesh_text(point.technique), fmt::format("{}", point.batch),
                   figures ? fmt::format("{:.3f}", speed.milliseconds) : "-",
                   figures ? human_count(speed.tokens_per_second) : "-",
                   percent_or_dash(figures ? figures->efficiency : std::nullopt), figures ? exposed_text(speed) : "-",
                   percent_or_dash(speed.bubble)});
    if (!point.failure.empty()) {
      failures +=
          fmt::format("failed: {} on {} ranks: {}\n", point.technique.name, point.technique.ranks(), point.failure);
    }
  }
  return fmt::format("{} scaling in virtual time\n{}{}", results.scaling, table.text(), failures);
}

}  // namespace

std::string table_text(const Results& results) {
  std::string text;
  if (!results.rows.empty()) text += rows_table(results) + legend_text(results);
  if (!results.points.empty()) text += fmt::format("{}{}", text.empty() ? "" : "\n", points_table(results));
  return text;
}

}  // namespace ninefold::comparison
