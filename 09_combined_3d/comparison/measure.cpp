#include <algorithm>
#include <cmath>
#include <fstream>

#include "09_combined_3d/comparison/progress_line.h"
#include "common/base/check.h"

namespace ninefold::comparison {
namespace {

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

// The baseline of a row, if there is one and it ran.
const Row* baseline_of(const Row& row, const std::vector<Row>& rows) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& other) {
    return other.technique.is_baseline() && other.technique.has_experts == row.technique.has_experts && other.here;
  });
  return found == rows.end() ? nullptr : &*found;
}

const Speed* find_speed(const Row* row, const std::string& profile) {
  if (!row) return nullptr;
  const auto found = row->on.find(profile);
  return found == row->on.end() ? nullptr : &found->second.speed;
}

void measure_row(Row& row, std::vector<double>& losses, const Workload& work, const std::vector<Profile>& profiles,
                 const Settings& settings) {
  try {
    Measurement found = measure(row.technique, work, settings.steps, "");
    row.here = {.speed = found.wall, .efficiency = {}};
    row.memory = std::move(found.memory);
    row.traffic = std::move(found.traffic);
    losses = std::move(found.losses);
    for (const Profile& profile : profiles) {
      row.on[profile.name] = {.speed = virtual_speed(row.technique, work, profile, settings), .efficiency = {}};
    }
  } catch (const UserError& error) {
    row.failure = error.what();
  }
}

}  // namespace

std::optional<double> efficiency(const Speed& speed, int ranks, const Speed* baseline) {
  if (!baseline) return std::nullopt;
  return speed.tokens_per_second / (ranks * baseline->tokens_per_second);
}

Speed virtual_speed(const Technique& technique, const Workload& work, const Profile& profile,
                    const Settings& settings) {
  const Measurement found = measure(technique, work, settings.virtual_steps, cluster_text(profile, technique.mesh));
  expect(found.in_virtual_time.has_value(), "a run with --cluster reports virtual time");
  return *found.in_virtual_time;
}

bool Results::has_failures() const {
  const auto failed = [](const auto& one) { return !one.failure.empty(); };
  return std::any_of(rows.begin(), rows.end(), failed) || std::any_of(points.begin(), points.end(), failed);
}

std::optional<double> find(const std::map<std::string, double>& numbers, std::string_view name) {
  const auto found = numbers.find(std::string(name));
  if (found == numbers.end()) return std::nullopt;
  return found->second;
}

std::optional<double> other_memory(const Row& row) {
  if (row.memory.empty()) return std::nullopt;
  double other = 0;
  for (const auto& [kind, bytes] : row.memory) {
    if (std::find(std::begin(memory_columns), std::end(memory_columns), kind) == std::end(memory_columns))
      other += bytes;
  }
  return other;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "processor unknown";
}

void relate_to_baselines(std::vector<Row>& rows, const std::map<std::string, std::vector<double>>& losses) {
  for (Row& row : rows) {
    if (!row.here) continue;
    const Row* baseline = baseline_of(row, rows);
    const int ranks = row.technique.ranks();
    row.here->efficiency = efficiency(row.here->speed, ranks, baseline ? &baseline->here->speed : nullptr);
    for (auto& [profile, figures] : row.on) {
      figures.efficiency = efficiency(figures.speed, ranks, find_speed(baseline, profile));
    }
    if (baseline && losses.contains(row.technique.name)) {
      row.loss_difference = largest_difference(losses.at(row.technique.name), losses.at(baseline->technique.name));
    }
  }
}

std::vector<Row> compare(const std::vector<Technique>& techniques, const Workload& work,
                         const std::vector<Profile>& profiles, const Settings& settings) {
  std::vector<Row> rows;
  std::map<std::string, std::vector<double>> losses;
  for (const Technique& technique : techniques) {
    const ProgressLine line(rows.size() + 1, techniques.size(), technique.name);
    Row row{.technique = technique, .command = shell_line(command_of(technique, work))};
    measure_row(row, losses[technique.name], work, profiles, settings);
    line.end(row.here, row.failure);
    rows.push_back(std::move(row));
  }
  relate_to_baselines(rows, losses);
  return rows;
}

}  // namespace ninefold::comparison
