#include "common/train/gather.h"

#include <algorithm>
#include <cstring>

#include "common/comm/control.h"

namespace ninefold {
namespace {

std::string bytes_of(const Tensor& tensor) {
  std::string bytes(static_cast<size_t>(tensor.bytes()), '\0');
  tensor.copy_to_host(bytes.data());
  return bytes;
}

}  // namespace

bool holds_first_copy(const Placement& placement, const Mesh& mesh) {
  std::vector<std::string> names;
  for (const MeshDimension& dimension : mesh.dimensions()) names.push_back(dimension.name);
  for (const Placement::Shard& shard : placement.shards) names = mesh.arranged_with(shard.mesh_dimension, names);
  return std::all_of(names.begin(), names.end(),
                     [&](const std::string& name) { return placement.is_first_copy(name, mesh.coordinate(name)); });
}

std::string gather_global(const World& world, const Parameter& parameter, const Tensor& local) {
  if (!parameter.placement.is_divided()) return world.rank() == 0 ? bytes_of(local) : std::string();

  const auto offsets = control::to_bytes(parameter.placement.pieces(parameter.shape));
  const auto all_pieces = control::gather_bytes(world.group(), offsets);
  const auto all_values = control::gather_bytes(world.group(), bytes_of(local));
  const int64_t width = size_of(local.dtype());
  std::string global(world.rank() == 0 ? static_cast<size_t>(parameter.size() * width) : 0, '\0');
  for (size_t rank = 0; rank < all_pieces.size(); ++rank) {
    for (const Piece& piece : control::from_bytes<Piece>(all_pieces[rank])) {
      std::memcpy(global.data() + piece.global_offset * width, all_values[rank].data() + piece.local_offset * width,
                  static_cast<size_t>(piece.length * width));
    }
  }
  return global;
}

void scatter_local(const std::string& global, const Parameter& parameter, const Tensor& local) {
  expect(static_cast<int64_t>(global.size()) == parameter.size() * size_of(local.dtype()),
         "{} bytes are not a {} of shape {}", global.size(), parameter.name, to_string(parameter.shape));
  for (const Piece& piece : parameter.placement.pieces(parameter.shape)) {
    local.slice(piece.local_offset, {piece.length})
        .copy_from_host(global.data() + piece.global_offset * size_of(local.dtype()));
  }
}

}  // namespace ninefold
