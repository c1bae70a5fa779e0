#include "common/nn/parameter.h"

#include <algorithm>
#include <numeric>

#include "common/base/random.h"

namespace ninefold {
namespace {

// Of so many elements, the length of each of the shard's equal parts.
int64_t part_of(int64_t extent, const Placement::Shard& shard) { return (extent + shard.count - 1) / shard.count; }

// The part of a row-major tensor that one shard after another leaves, as the runs of consecutive elements it is made
// of.
std::vector<Piece> sharded_runs(const Placement& placement, const Shape& global) {
  std::vector<int64_t> begin(global.size(), 0);
  Shape extent = global;  // with padding
  for (const auto& shard : placement.shards) {
    extent[shard.dim] = part_of(extent[shard.dim], shard);
    begin[shard.dim] += shard.index * extent[shard.dim];
  }
  Shape real = extent;
  for (size_t dim = 0; dim < global.size(); ++dim)
    real[dim] = std::clamp<int64_t>(global[dim] - begin[dim], 0, real[dim]);
  int inner = static_cast<int>(global.size());
  int64_t run = 1;  // consecutive elements: whole dimensions from the last up, then the first one that is cut
  while (inner > 0 && extent[inner - 1] == global[inner - 1]) run *= extent[--inner];
  if (inner > 0) run *= real[--inner];

  std::vector<Piece> runs;
  const int64_t count = elements(real) / std::max<int64_t>(run, 1);
  for (int64_t r = 0; r < count; ++r) {
    int64_t offset = 0, stride = 1, local_offset = 0, local_stride = 1, rest = r;
    for (int dim = static_cast<int>(global.size()) - 1; dim >= 0; --dim) {
      const int64_t index = dim >= inner ? 0 : rest % real[dim];
      if (dim < inner) rest /= real[dim];
      offset += (begin[dim] + index) * stride;
      local_offset += index * local_stride;
      stride *= global[dim];
      local_stride *= extent[dim];
    }
    runs.push_back({offset, local_offset, run});
  }
  return runs;
}

}  // namespace

bool Placement::is_held() const {
  if (!replicated_over) return true;
  const auto& [dimension, coordinates, own] = *replicated_over;
  return std::count(coordinates.begin(), coordinates.end(), own) > 0;
}

bool Placement::is_first_copy(std::string_view mesh_dimension, int coordinate) const {
  if (replicated_over && replicated_over->mesh_dimension == mesh_dimension) {
    return replicated_over->coordinates.front() == coordinate;
  }
  const auto is_it = [&](const Shard& shard) { return shard.mesh_dimension == mesh_dimension; };
  const auto shard = std::find_if(shards.begin(), shards.end(), is_it);
  if (shard != shards.end()) return coordinate % shard->copies == 0;
  if (flat && std::count(flat->mesh_dimensions.begin(), flat->mesh_dimensions.end(), mesh_dimension) > 0) return true;
  return coordinate == 0;
}

Shape Placement::sharded_shape(const Shape& global) const {
  Shape local = global;
  for (const auto& shard : shards) local[shard.dim] = part_of(local[shard.dim], shard);
  return local;
}

Shape Placement::local_shape(const Shape& global) const {
  if (!is_held()) return {0};
  return flat ? Shape{flat->length} : sharded_shape(global);
}

std::vector<Piece> Placement::pieces(const Shape& global) const {
  if (!is_held()) return {};
  std::vector<Piece> runs = sharded_runs(*this, global);
  if (!flat) return runs;
  std::vector<Piece> inside;
  for (const Piece& run : runs) {
    const int64_t begin = std::max(run.local_offset, flat->offset);
    const int64_t end = std::min(run.local_offset + run.length, flat->offset + flat->length);
    if (begin < end)
      inside.push_back({run.global_offset + begin - run.local_offset, begin - flat->offset, end - begin});
  }
  return inside;
}

void Parameter::zero_gradient(int64_t contributions) {
  has_gradient_ = false;
  missing_ = contributions;
}

void Parameter::write_gradient(const std::function<void(const Tensor&, bool)>& write) {
  if (!gradient.defined() && on_gradient_needed) on_gradient_needed();
  write(gradient, has_gradient_);
  contributed(1);
}

void Parameter::contributed(int64_t contributions) {
  has_gradient_ = true;
  missing_ -= contributions;
  if (missing_ == 0 && on_gradient_complete) on_gradient_complete();
}

void Parameter::add_gradient(const std::function<void(const Tensor&)>& add) {
  write_gradient([&](const Tensor& target, bool accumulate) {
    if (!accumulate) ops::fill_(target, 0);
    add(target);
  });
}

void Parameter::complete_gradient() {
  if (missing_ <= 0) return;
  missing_ = 1;
  add_gradient([](const Tensor&) {});
}

void Parameter::initialise(const Tensor& target, uint64_t seed) const {
  const bool is_owned_part = target.size() == elements(local_shape());
  const Placement whole{.shards = placement.shards, .flat = {}, .partial = {}};
  const std::vector<Piece> pieces = (is_owned_part ? placement : whole).pieces(shape);
  const auto add_length = [](int64_t sum, const Piece& piece) { return sum + piece.length; };
  const bool has_padding = std::accumulate(pieces.begin(), pieces.end(), int64_t{0}, add_length) < target.size();
  if (has_padding) ops::fill_(target, 0);
  for (const Piece& piece : pieces) {
    ops::fill_random_(target.slice(piece.local_offset, {piece.length}), initial, hash_key(seed, name),
                      piece.global_offset);
  }
}

}  // namespace ninefold
