#include "09_combined_3d/options.h"

namespace ninefold {

void CombinedOptions::declare(Options& options) {
  mesh.declare(options);
  options.group("Pipeline");
  techniques.pipeline.declare(options);
  options.group("Tensor parallelism");
  techniques.tensor.declare(options);
  options.group("Context parallelism");
  techniques.context.declare(options);
  techniques.sharding.declare(options);
  techniques.recomputation.declare(options);
  train.declare_moe(options);
  train.declare(options);
  options.group("Run");
  train.declare_cuda_graph(options);
}

void CombinedOptions::settle(const Options& given, int ranks) {
  mesh.settle(given, ranks);
  train.settle_checkpoint(given);
  settle_experts(given);
  train.settle_defaults(given);
}

void CombinedOptions::settle_experts(const Options& given) {
  train.settle_moe();
  const int64_t experts = train.llama.moe.experts;
  for (const std::string& name : given.given_under("Mixture of experts")) {
    require(experts > 0 || name == "--experts", "{} is for experts, but there are none; add --experts 8", name);
  }
  require(experts > 0 || mesh.ep == 1, "ep ({}) ranks divide experts, but there are none; add --experts {}", mesh.ep,
          4 * mesh.ep);
  require(experts % mesh.ep == 0, "experts ({}) must be divisible by ep ({}); try --experts {}", experts, mesh.ep,
          (experts / mesh.ep + 1) * mesh.ep);
}

void CombinedOptions::settle(const Options& given, const Mesh& sizes, int data_ranks) {
  auto& [pipeline, tensor, context, sharding, recomputation] = techniques;
  const int pp = sizes.size("pp"), shards = sizes.size("dp_shard"), cp = sizes.size("cp"), tp = sizes.size("tp");
  for (const char* name : {"--schedule", "--virtual-stages", "--schedule-csv", "--layers-per-stage"}) {
    require(pp > 1 || !given.given(name), "{} is for a pipeline, but --pp is 1; add --pp 2", name);
  }
  context.validate(given, cp);
  require(shards > 1 || cp > 1 || data_ranks == 1 || sharding.stage == 0 || !given.given("--stage"),
          "--stage {} divides states over --dp-shard, but that is 1; give it the ranks of --dp-replicate ({})",
          sharding.stage, data_ranks);
  // Nobody to divide states with; the ranks of --cp do where that is asked for.
  if (shards == 1 && (cp == 1 || !given.given("--stage"))) sharding.stage = 0;
  sharding.settle_types(train);
  sharding.validate();
  require(tp == 1 || !sharding.output_dtype, "--output-dtype is not for tensor parallelism (tp {}); leave it out", tp);
  train.f8_linears = tensor.f8.pattern(given, train.precision().compute);
  require(pp == 1 || train.f8_linears.empty(), "--matmul-dtype f8 is not for a pipeline (pp {}); leave it out", pp);
  train.recomputation = recomputation.resolve();
  for (const char* name : {"pp", "dp_shard", "cp", "tp"}) {
    require(
        !train.cuda_graph || sizes.size(name) == 1,
        "--cuda-graph repeats what one GPU does by itself, but the {} ranks of {} exchange something within it; use "
        "--dp-replicate for them, or leave --cuda-graph out",
        sizes.size(name), name);
  }
  train.validate_cuda_graph();
  if (pp > 1) {
    pipeline.validate(given, train);
    pipeline.settle_micro_batches(train, data_ranks);
  }
  train.resolve(data_ranks);
  const int64_t experts = train.llama.moe.experts;
  require(
      experts == 0 || pp == 1 || train.llama.moe.balance_scope == BalanceScope::sequence,
      "--balance-scope batch counts the choices of all layers, of which a stage of a pipeline (pp {}) has some; use "
      "sequence",
      pp);
  require(experts == 0 || train.f8_linears.empty(), "--matmul-dtype f8 is not for --experts ({}); leave it out",
          experts);
  require(cp == 1 || train.f8_linears.empty(), "--matmul-dtype f8 is not for context parallelism (cp {}); leave it out",
          cp);
  tensor.division(train).validate(tp, train.length, cp);
  if (cp > 1) context.sequence_layout(cp).validate(train.length, train.llama.heads, train.llama.kv_heads, tp);
}

}  // namespace ninefold
