#include "03_zero_fsdp/units.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "common/base/text.h"
#include "common/comm/world.h"
#include "common/nn/model.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

constexpr std::string_view size_prefix = "size:";

int64_t minimum_size(const std::string& wrap) {
  int64_t minimum = 0;
  const char* const begin = wrap.data() + size_prefix.size();
  const char* const end = wrap.data() + wrap.size();
  const auto [rest, error] = std::from_chars(begin, end, minimum);
  require(error == std::errc() && rest == end && minimum > 0,
          "--wrap {} needs a number of parameters from 1 after \"{}\", such as {}20000", wrap, size_prefix,
          size_prefix);
  return minimum;
}

// Every layer that can become a unit, outer ones first, with the number of parameters below it.
std::vector<std::pair<std::string, int64_t>> layer_sizes(Layer& model) {
  std::vector<std::pair<std::string, int64_t>> layers;
  for (const std::string& path : slot_paths(model)) {
    for_each_match(model, path, [&](const std::string&, std::unique_ptr<Layer>& layer) {
      layers.emplace_back(path, parameter_count(*layer));
    });
  }
  return layers;
}

std::vector<std::string> matching_paths(Layer& model, const std::string& pattern) {
  std::vector<std::string> paths;
  for_each_match(model, pattern, [&](const std::string& path, std::unique_ptr<Layer>&) { paths.push_back(path); });
  if (paths.empty() && on_first_rank()) {
    fmt::print(stderr, "warning: --wrap {} matches no layer, so it makes no unit; the layers are {}\n", pattern,
               fmt::join(slot_paths(model), ", "));
  }
  return paths;
}

}  // namespace

bool is_below(const std::string& inner, const std::string& outer) {
  return inner.starts_with(outer) && (inner.size() == outer.size() || inner[outer.size()] == '.');
}

std::vector<std::string> size_based_units(const std::vector<std::pair<std::string, int64_t>>& layers, int64_t minimum) {
  std::vector<std::string> chosen;
  std::vector<int64_t> left;  // of each layer's parameters, those in no unit inside it
  for (const auto& [path, size] : layers) left.push_back(size);
  for (size_t inner = layers.size(); inner-- > 0;) {
    if (left[inner] < minimum) continue;
    chosen.insert(chosen.begin(), layers[inner].first);
    for (size_t outer = 0; outer < inner; ++outer) {
      if (is_below(layers[inner].first, layers[outer].first)) left[outer] -= left[inner];
    }
  }
  return chosen;
}

std::vector<std::string> unit_paths(Layer& model, const std::string& wrap) {
  if (wrap.starts_with(size_prefix)) {
    const std::vector<std::string> paths = size_based_units(layer_sizes(model), minimum_size(wrap));
    if (paths.empty() && on_first_rank()) {
      fmt::print(stderr, "--wrap {}: no layer has so many parameters, so they all are one unit\n", wrap);
    }
    return paths;
  }
  std::vector<std::string> wanted;
  for (const std::string_view pattern : split(wrap, ',')) {
    for (const std::string& path : matching_paths(model, std::string(pattern))) wanted.push_back(path);
  }
  std::vector<std::string> ordered;
  for (const std::string& path : slot_paths(model)) {
    if (std::count(wanted.begin(), wanted.end(), path) > 0) ordered.push_back(path);
  }
  return ordered;
}

}  // namespace ninefold
