#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <fmt/ranges.h>

#include "09_combined_3d/comparison/results.h"
#include "common/base/check.h"
#include "common/base/text.h"

namespace ninefold::comparison {
namespace {

namespace fs = std::filesystem;

const fs::path folder = NINEFOLD_ROOT "/configs/clusters";

std::vector<std::string> known_names() {
  std::vector<std::string> names;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder, missing)) names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

Profile read_profile(const std::string& name) {
  const fs::path own = folder / (name + ".txt");
  const fs::path path = fs::exists(own) ? own : fs::path(name);
  require(!name.empty() && fs::is_regular_file(path), "--clusters: '{}' is neither one of {} nor a file", name,
          fmt::join(known_names(), ", "));
  Profile profile{.name = path.stem(), .cluster = Cluster::parse(path), .note = {}};
  std::ifstream file(path);
  std::string line;
  if (std::getline(file, line) && line.starts_with("#")) profile.note = trimmed(std::string_view(line).substr(1));
  return profile;
}

}  // namespace

std::vector<Profile> read_profiles(const std::string& names) {
  std::vector<Profile> profiles;
  if (names.empty() || names == "none") return profiles;
  for (const std::string_view name : split(names, ',')) {
    profiles.push_back(read_profile(std::string(trimmed(name))));
    const auto is_same = [&](const Profile& other) { return other.name == profiles.back().name; };
    require(std::count_if(profiles.begin(), profiles.end(), is_same) == 1, "--clusters {} has {} twice", names,
            profiles.back().name);
  }
  return profiles;
}

std::string cluster_text(const Profile& profile, const std::vector<MeshDimension>& mesh) {
  const Cluster& cluster = profile.cluster;
  std::string text = "compute=cpu";
  if (cluster.compute) {
    text = fmt::format("compute={}MF/s", cluster.compute->flops / 1e6);
    if (std::isfinite(cluster.compute->memory)) text += fmt::format(",memory={}B/s", cluster.compute->memory);
  }
  if (std::isfinite(cluster.reduce)) text += fmt::format(" reduce={}B/s", cluster.reduce);
  if (cluster.rendezvous < std::numeric_limits<int64_t>::max())
    text += fmt::format(" rendezvous={}B", cluster.rendezvous);
  for (const MeshDimension& dimension : mesh) {
    const auto link = cluster.links.find(dimension.name);
    require(link != cluster.links.end(), "the cluster {} has no link for {}", profile.name, dimension.name);
    text += fmt::format(" {}={}B/s,{}s", dimension.name, link->second.bandwidth, link->second.latency);
  }
  return text;
}

}  // namespace ninefold::comparison
