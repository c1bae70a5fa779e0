#include "common/comm/mesh.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

namespace ninefold {
namespace {

std::string text_of(const MeshDimension& dimension) {
  return dimension.size == 0 ? dimension.name + "(auto)" : fmt::format("{}({})", dimension.name, dimension.size);
}

// Product of the given sizes, auto left out.
int64_t ranks_of(const std::vector<MeshDimension>& dimensions) {
  int64_t ranks = 1;
  for (const MeshDimension& dimension : dimensions) {
    require(dimension.size >= 0, "{} ({}) must be at least 1, or auto", dimension.name, dimension.size);
    if (dimension.size <= 1) continue;
    require(ranks <= std::numeric_limits<int>::max(),
            "{} are more ranks than any job has; their product is that of the job", to_string(dimensions));
    ranks *= dimension.size;
  }
  return ranks;
}

void fill_auto(std::vector<MeshDimension>& dimensions, int job_ranks) {
  const auto is_auto = [](const MeshDimension& dimension) { return dimension.size == 0; };
  const auto first = std::find_if(dimensions.begin(), dimensions.end(), is_auto);
  if (first == dimensions.end()) return;
  const auto second = std::find_if(first + 1, dimensions.end(), is_auto);
  require(second == dimensions.end(), "{} and {} are both auto: give one of them a size", first->name,
          second == dimensions.end() ? "" : second->name);
  const int64_t others = ranks_of(dimensions);
  require(job_ranks % others == 0, "{} needs a multiple of {} ranks, but the job has {}", to_string(dimensions), others,
          job_ranks);
  first->size = static_cast<int>(job_ranks / others);
}

bool has_name(const std::vector<MeshDimension>& dimensions, std::string_view name) {
  return std::any_of(dimensions.begin(), dimensions.end(), [&](const auto& one) { return one.name == name; });
}

}  // namespace

Mesh::Mesh(World& world, std::vector<MeshDimension> dimensions) : world_(world), dimensions_(std::move(dimensions)) {
  ranks_of(dimensions_);
  fill_auto(dimensions_, world.size());
  const int64_t ranks = ranks_of(dimensions_);
  require(ranks == world.size(), "{} = {} rank{}, but the job has {}", to_string(dimensions_), ranks,
          ranks == 1 ? "" : "s", world.size());

  world.arrange(dimensions_);
  int64_t stride = world.size();  // between neighbours along the dimension
  for (const MeshDimension& dimension : dimensions_) {
    stride /= dimension.size;
    const int64_t coordinate = world.rank() / stride % dimension.size;
    std::vector<int> members;
    for (int i = 0; i < dimension.size; ++i) {
      members.push_back(static_cast<int>(world.rank() + (i - coordinate) * stride));
    }
    groups_.push_back(world.make_group(dimension.name, members));
  }
}

bool Mesh::has(std::string_view name) const { return has_name(dimensions_, name) || has_name(others_, name); }

void Mesh::split(const std::vector<std::string>& names, std::vector<MeshDimension> others) {
  const Group all = flatten(names);
  expect(others_.empty() && ranks_of(others) == all.size(), "{} ranks cannot be arranged as {}", all.size(),
         to_string(others));
  int64_t stride = all.size();
  for (const MeshDimension& dimension : others) {
    stride /= dimension.size;
    const int64_t coordinate = all.rank() / stride % dimension.size;
    std::vector<int> members;
    for (int i = 0; i < dimension.size; ++i) {
      members.push_back(all.members()[static_cast<size_t>(all.rank() + (i - coordinate) * stride)]);
    }
    groups_.push_back(world_.make_group(dimension.name, members));
  }
  split_ = names;
  others_ = std::move(others);
}

std::vector<std::string> Mesh::arranged_with(std::string_view name, const std::vector<std::string>& names) const {
  if (!has_name(others_, name)) return names;
  std::vector<std::string> arranged;
  for (const std::string& one : names) {
    const bool is_split = std::count(split_.begin(), split_.end(), one) > 0;
    if (!is_split && !has_name(others_, one)) arranged.push_back(one);
  }
  for (const MeshDimension& other : others_) arranged.push_back(other.name);
  return arranged;
}

Group Mesh::flatten(const std::vector<std::string>& names) const {
  std::vector<int> members = {world_.rank()};
  std::vector<std::string> joined;
  const auto is_split = [&](const std::string& name) { return std::count(split_.begin(), split_.end(), name) > 0; };
  const bool has_split = std::any_of(names.begin(), names.end(), is_split);
  for (const std::string& name : names) {
    if (!has(name) || size(name) == 1 || (has_split && has_name(others_, name))) continue;
    joined.push_back(name);
    std::vector<int> extended;
    for (const int member : members) {
      for (const int along : (*this)[name].members()) extended.push_back(member + along - world_.rank());
    }
    members = std::move(extended);
  }
  if (joined.empty()) return world_.make_group(names.front(), members);
  if (joined.size() == 1) return (*this)[joined.front()];
  return world_.make_group(fmt::format("{}", fmt::join(joined, "+")), members);
}

size_t Mesh::index_of(std::string_view name) const {
  for (size_t i = 0; i < dimensions_.size() + others_.size(); ++i) {
    if ((i < dimensions_.size() ? dimensions_[i] : others_[i - dimensions_.size()]).name == name) return i;
  }
  expect(false, "the mesh {} has no dimension {}", to_string(*this), name);
  return 0;
}

std::string to_string(const std::vector<MeshDimension>& dimensions) {
  const bool any_larger =
      std::any_of(dimensions.begin(), dimensions.end(), [](const auto& one) { return one.size != 1; });
  std::string text;
  for (const MeshDimension& dimension : dimensions) {
    if (any_larger && dimension.size == 1) continue;
    text += (text.empty() ? "" : " x ") + text_of(dimension);
  }
  return text;
}

std::string to_string(const Mesh& mesh) {
  const std::string text = to_string(mesh.dimensions());
  return mesh.split_dimensions().empty() ? text
                                         : fmt::format("{} ({} for experts)", text, to_string(mesh.split_dimensions()));
}

}  // namespace ninefold
