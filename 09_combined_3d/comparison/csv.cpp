#include "09_combined_3d/comparison/write.h"

#include <fmt/ranges.h>

namespace ninefold::comparison {
namespace {

// In the order of the mesh.
constexpr std::string_view dimensions[] = {"pp", "dp_replicate", "dp_shard", "cp", "tp", "ep"};

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result(1, '"');
  for (const char letter : text) result.append(letter == '"' ? 2 : 1, letter);
  result += '"';
  return result;
}

std::string number(std::optional<double> value) { return value ? fmt::format("{}", *value) : ""; }

void add_speed(std::vector<std::string>& cells, const Figures* figures) {
  if (!figures) {
    cells.insert(cells.end(), 5, "");
    return;
  }
  const Speed& speed = figures->speed;
  cells.insert(cells.end(), {number(speed.milliseconds), number(speed.tokens_per_second), number(figures->efficiency),
                             number(speed.exposed_milliseconds), number(speed.bubble)});
}

void add_speed_headers(std::vector<std::string>& headers, const std::string& prefix) {
  for (const char* name : {"ms_per_step", "tokens_per_second", "efficiency", "exposed_ms_per_step", "bubble"}) {
    headers.push_back(prefix + name);
  }
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::vector<std::string> safe;
  for (const std::string& cell : cells) safe.push_back(quoted(cell));
  return fmt::format("{}\n", fmt::join(safe, ","));
}

std::string rows_csv(const Results& results) {
  std::vector<std::string> headers = {"technique", "ranks", "mesh", "loss_difference"};
  add_speed_headers(headers, "");
  for (const std::string_view kind : memory_columns) headers.push_back(fmt::format("{}_bytes", kind));
  headers.push_back("other_bytes");
  for (const std::string_view dimension : dimensions) headers.push_back(fmt::format("{}_sent_bytes", dimension));
  for (const Profile& profile : results.profiles) add_speed_headers(headers, profile.name + "_");
  headers.insert(headers.end(), {"note", "failure"});
  std::string text = csv_line(headers);
  for (const Row& row : results.rows) {
    std::vector<std::string> cells = {row.technique.name, fmt::format("{}", row.technique.ranks()),
                                      mesh_text(row.technique), number(row.loss_difference)};
    add_speed(cells, row.here ? &*row.here : nullptr);
    for (const std::string_view kind : memory_columns) cells.push_back(number(find(row.memory, kind)));
    cells.push_back(number(other_memory(row)));
    for (const std::string_view dimension : dimensions) cells.push_back(number(find(row.traffic, dimension)));
    for (const Profile& profile : results.profiles) {
      add_speed(cells, row.on.contains(profile.name) ? &row.on.at(profile.name) : nullptr);
    }
    cells.insert(cells.end(), {row.note, row.failure});
    text += csv_line(cells);
  }
  return text;
}

std::string points_csv(const Results& results) {
  std::vector<std::string> headers = {"scaling", "cluster", "technique", "ranks", "mesh", "batch"};
  add_speed_headers(headers, "");
  headers.push_back("failure");
  std::string text = csv_line(headers);
  for (const ScalingPoint& point : results.points) {
    std::vector<std::string> cells = {results.scaling,
                                      point.profile,
                                      point.technique.name,
                                      fmt::format("{}", point.technique.ranks()),
                                      mesh_text(point.technique),
                                      fmt::format("{}", point.batch)};
    add_speed(cells, point.figures ? &*point.figures : nullptr);
    cells.push_back(point.failure);
    text += csv_line(cells);
  }
  return text;
}

}  // namespace

std::string csv_text(const Results& results) { return results.rows.empty() ? points_csv(results) : rows_csv(results); }

}  // namespace ninefold::comparison
