// A mesh arranges the ranks of a job in named dimensions; each rank has one group per dimension, the ranks that differ
// from it in that coordinate alone.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/comm/group.h"
#include "common/comm/world.h"

namespace ninefold {

struct MeshDimension {
  std::string name;
  int size = 1;  // 0: what the other dimensions leave over (at most one dimension)
};

// Outermost first; the last dimension varies fastest, so that its ranks are neighbours. Its groups end with the mesh
// and the copies of its groups. All ranks make the same meshes in the same order; in
// virtual time the last one says where the ranks are.
class Mesh {
 public:
  // UserError with the whole equation where the sizes do not multiply to the ranks of the job.
  Mesh(World& world, std::vector<MeshDimension> dimensions);

  // The group, size and own coordinate of a dimension; Error for a name that the mesh does not have.
  const Group& operator[](std::string_view name) const { return groups_[index_of(name)]; }
  int size(std::string_view name) const { return (*this)[name].size(); }
  int coordinate(std::string_view name) const { return groups_[index_of(name)].rank(); }
  bool has(std::string_view name) const;

  // The group of the ranks that differ from this one in these dimensions only, the last named varying
  // fastest, whatever the mesh's order; its name joins theirs ("dp_replicate+dp_shard"). Dimensions of size one, and
  // those that the mesh does not have, are left out; a single one that is left is that dimension's own group. All ranks
  // call it.
  Group flatten(const std::vector<std::string>& names) const;

  // Arranges the ranks along `names` another way, too: along `others`, whose sizes multiply to theirs, the last varying
  // fastest. From then on those are dimensions as well, but not to be flattened with the ones they stand for: then
  // those count. Once; all ranks call it.
  void split(const std::vector<std::string>& names, std::vector<MeshDimension> others);
  // `names`, with those others in place of what was split, if `name` is one of them.
  std::vector<std::string> arranged_with(std::string_view name, const std::vector<std::string>& names) const;

  // Without those of split().
  const std::vector<MeshDimension>& dimensions() const { return dimensions_; }
  const std::vector<MeshDimension>& split_dimensions() const { return others_; }
  World& world() const { return world_; }

 private:
  size_t index_of(std::string_view name) const;

  World& world_;
  std::vector<MeshDimension> dimensions_;
  std::vector<std::string> split_;  // names of dimensions that are others_, too
  std::vector<MeshDimension> others_;
  std::vector<Group> groups_;  // of dimensions_, then of others_
};

// "pp(2) x tp(4)": the dimensions larger than one, or all where none is.
std::string to_string(const std::vector<MeshDimension>& dimensions);
std::string to_string(const Mesh& mesh);

}  // namespace ninefold
