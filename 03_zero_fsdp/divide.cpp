#include "03_zero_fsdp/divide.h"

#include "02_ddp/replicate.h"
#include "03_zero_fsdp/gather_f8.h"
#include "03_zero_fsdp/sharding.h"

namespace ninefold {

void ShardingMesh::declare(Options& options) {
  options.add("--dp-shard", dp_shard, "ranks over which states are divided; auto: the ranks left over",
              {.minimum = 1, .may_be_auto = true});
  options.add("--dp-replicate", dp_replicate, "ranks that hold copies of each shard (HSDP)", {.minimum = 1});
}

Mesh ShardingMesh::over(World& world) const {
  return Mesh(world, {{"dp_replicate", mesh_size(dp_replicate)}, {"dp_shard", mesh_size(dp_shard)}});
}

Parallelism divide(Model& model, const Mesh& mesh, const ShardingPolicy& policy, const TrainOptions& options) {
  const DeviceHandle& device = mesh.world().device();
  if (policy.stage == 0) {
    const DataGroups data(mesh, {"dp_replicate", "dp_shard", "cp", "ep"}, model);
    const DdpOptions ddp{.reduce = policy.reduce_dtype};
    const auto replicated = std::make_shared<Replicated>(model, data, ddp, device, options.grad_dtype);
    Parallelism parallelism = replicated->parallelism();
    parallelism.technique = replicated;
    return parallelism;
  }
  const DataGroups shards(mesh, {"dp_shard", "cp", "ep"}, model);
  std::vector<Group> cut = groups_of_parts(parameters_of(model), mesh);
  std::erase_if(cut, [](const Group& group) { return group.name() == "ep"; });  // shards.all() has those ranks
  const std::shared_ptr<Sharding> sharding = shard(model, {shards, mesh["dp_replicate"], cut}, policy, device);
  if (mesh.world().rank() == 0 && options.verbose) fmt::print("{}", sharding->description());
  Parallelism parallelism = sharding->parallelism(options.micro_batches);
  parallelism.technique = sharding;
  return parallelism;
}

}  // namespace ninefold
