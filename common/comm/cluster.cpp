#include "common/comm/cluster.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include <fmt/ranges.h>

#include "common/base/check.h"
#include "common/comm/mesh.h"

namespace ninefold {
namespace {

// What a number means, and the units it may have.
struct Quantity {
  std::string_view name;
  std::vector<std::pair<std::string_view, double>> units;
  bool may_be_zero = false;
};

const Quantity bandwidth = {"bandwidth", {{"B/s", 1}, {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12}}};
const Quantity speed = {"speed of computing", {{"MF/s", 1e6}, {"GF/s", 1e9}, {"TF/s", 1e12}, {"PF/s", 1e15}}};
const Quantity latency = {"latency", {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}}, true};
const Quantity size = {"size", {{"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}}, true};

std::string units_of(const Quantity& quantity) {
  std::vector<std::string_view> names;
  for (const auto& [unit, factor] : quantity.units) names.push_back(unit);
  return fmt::format("{}", fmt::join(names, ", "));
}

double parse_quantity(const std::string& entry, std::string_view text, const Quantity& quantity) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  require(error == std::errc() && std::isfinite(number),
          "--cluster: '{}' needs a {}, a number with one of {}, not '{}'", entry, quantity.name, units_of(quantity),
          text);
  require(number > 0 || (quantity.may_be_zero && number == 0), "--cluster: the {} in '{}' must be {}", quantity.name,
          entry, quantity.may_be_zero ? "at least 0" : "above 0");
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  for (const auto& [name, factor] : quantity.units) {
    if (name == unit) return number * factor;
  }
  throw UserError(fmt::format("--cluster: the {} in '{}' must have one of the units {}, not '{}'", quantity.name, entry,
                              units_of(quantity), unit));
}

// The parts before and after the first `separator`; the second is empty where there is none.
std::pair<std::string_view, std::string_view> halves(std::string_view text, char separator) {
  const size_t place = text.find(separator);
  if (place == std::string_view::npos) return {text, {}};
  return {text.substr(0, place), text.substr(place + 1)};
}

Link parse_link(const std::string& entry, std::string_view value) {
  const auto [first, second] = halves(value, ',');
  require(!second.empty(), "--cluster: '{}' needs a bandwidth and a latency, such as {}=10GB/s,5us", entry,
          halves(entry, '=').first);
  return {parse_quantity(entry, first, bandwidth), parse_quantity(entry, second, latency)};
}

std::optional<ComputeRate> parse_compute(const std::string& entry, std::string_view value) {
  if (value == "cpu") return std::nullopt;
  constexpr std::string_view memory = "memory=";
  const auto [first, second] = halves(value, ',');
  ComputeRate rate{.flops = parse_quantity(entry, first, speed)};
  if (second.empty()) return rate;
  require(second.starts_with(memory), "--cluster: '{}' must be compute=cpu or like compute=50TF/s,memory=1TB/s", entry);
  rate.memory = parse_quantity(entry, second.substr(memory.size()), bandwidth);
  return rate;
}

void read_entry(Cluster& cluster, const std::string& entry) {
  const auto [key, value] = halves(entry, '=');
  require(!key.empty() && !value.empty(), "--cluster: '{}' is no entry; one is like dp_replicate=10GB/s,5us", entry);
  if (key == "compute") {
    cluster.compute = parse_compute(entry, value);
  } else if (key == "reduce") {
    cluster.reduce = parse_quantity(entry, value, bandwidth);
  } else if (key == "rendezvous") {
    cluster.rendezvous = static_cast<int64_t>(std::min(parse_quantity(entry, value, size), 1e18));
  } else {
    const bool is_new = cluster.links.emplace(key, parse_link(entry, value)).second;
    require(is_new, "--cluster: {} is given twice; leave one of them out", key);
  }
}

// The lines of a file without their comments.
std::string without_comments(const std::string& path) {
  std::ifstream file(path);
  require(file.good(),
          "--cluster {} is no file that can be read, and no description: one is like dp_replicate=10GB/s,5us", path);
  std::string text;
  for (std::string line; std::getline(file, line);) text += line.substr(0, line.find('#')) + "\n";
  return text;
}

}  // namespace

Cluster Cluster::parse(const std::string& description) {
  const bool is_file = description.find('=') == std::string::npos;
  std::istringstream entries(is_file ? without_comments(description) : description);
  Cluster cluster;
  for (std::string entry; entries >> entry;) read_entry(cluster, entry);
  return cluster;
}

void Cluster::require_fits(const std::vector<MeshDimension>& dimensions) const {
  std::vector<std::string> names;
  for (const MeshDimension& dimension : dimensions) names.push_back(dimension.name);
  for (const auto& [name, link] : links) {
    require(std::find(names.begin(), names.end(), name) != names.end(),
            "--cluster: {} is no dimension of the mesh; there {} {}", name, names.size() == 1 ? "is" : "are",
            fmt::join(names, ", "));
  }
  for (const MeshDimension& dimension : dimensions) {
    require(dimension.size == 1 || links.contains(dimension.name),
            "--cluster needs a link for {}({}), such as {}=10GB/s,5us", dimension.name, dimension.size, dimension.name);
  }
}

}  // namespace ninefold
