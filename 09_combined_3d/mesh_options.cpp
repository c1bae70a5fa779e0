#include "09_combined_3d/mesh_options.h"

#include <algorithm>
#include <numeric>

#include "common/base/check.h"
#include "common/base/text.h"
#include "common/train/options.h"

namespace ninefold {

void MeshOptions::declare(Options& options) {
  options.group("Mesh (none given: 8 ranks are pp 2 x dp-shard 2 x tp 2, 4 are dp-shard 2 x tp 2, 2 are dp-shard 2)");
  options.add("--pp", pp, "pipeline stages, or ranks that each hold some", {.minimum = 1});
  options.add("--dp-replicate", dp_replicate, "copies of all that follows, each with its part of the batch",
              {.minimum = 1, .may_be_auto = true});
  options.add("--dp-shard", dp_shard, "ranks over which states and the batch are divided; auto: the ranks left over",
              {.minimum = 1, .may_be_auto = true});
  options.add("--cp", cp, "ranks that share each sequence", {.minimum = 1});
  options.add("--tp", tp, "ranks that share each layer", {.minimum = 1});
  options.add("--ep", ep, "of the ranks of dp-shard x cp, those that divide the experts", {.minimum = 1});
  options.add("--mesh-order", order, "dimensions, outermost first; the ranks of the last are neighbours");
}

void MeshOptions::settle(const Options& given, int ranks) {
  std::vector<std::string_view> names = split(order, ','), usual = split("pp,dp_replicate,dp_shard,cp,tp", ',');
  std::sort(names.begin(), names.end());
  std::sort(usual.begin(), usual.end());
  require(names == usual, "--mesh-order {} must name each of pp, dp_replicate, dp_shard, cp and tp once", order);
  if (dp_replicate == Options::automatic && !given.given("--dp-shard")) dp_shard = 1;
  const auto is_given = [&](const char* name) { return given.given(name); };
  const auto sizes = {"--pp", "--dp-replicate", "--dp-shard", "--cp", "--tp"};
  if (std::any_of(sizes.begin(), sizes.end(), is_given)) return;
  pp = ranks % 8 == 0 ? 2 : 1;
  tp = ranks % 4 == 0 ? 2 : 1;
}

Mesh MeshOptions::over(World& world) const {
  const std::vector<std::pair<std::string_view, int64_t>> sizes = {
      {"pp", pp}, {"dp_replicate", dp_replicate}, {"dp_shard", dp_shard}, {"cp", cp}, {"tp", tp}};
  std::vector<MeshDimension> dimensions;
  for (const std::string_view name : split(order, ',')) {
    const auto size = std::find_if(sizes.begin(), sizes.end(), [&](const auto& one) { return one.first == name; });
    dimensions.push_back({std::string(name), mesh_size(size->second)});
  }
  Mesh mesh(world, std::move(dimensions));
  if (ep == 1) return mesh;
  const int shards = mesh.size("dp_shard"), parts = mesh.size("cp"), ranks = shards * parts;
  const int experts = mesh_size(ep);
  require(ranks % experts == 0,
          "ep ({}) must divide dp_shard({}) x cp({}) = {} ranks, over which experts are divided; try --dp-shard {}",
          experts, shards, parts, ranks, experts / std::gcd(experts, parts));
  mesh.split({"dp_shard", "cp"}, {{"edp", ranks / experts}, {"ep", experts}});
  return mesh;
}

}  // namespace ninefold
