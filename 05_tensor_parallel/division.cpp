#include "05_tensor_parallel/division.h"

#include <unistd.h>

#include <array>
#include <set>

#include "common/comm/control.h"

namespace ninefold {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  expect(gethostname(name.data(), name.size() - 1) == 0, "this host has no name");
  return name.data();
}

}  // namespace

Plan LlamaDivision::plan() const {
  Plan plan = llama_plan(config, sequence_parallel, loss_parallel);
  plan.async = async;
  plan.f8_linears = f8_linears;
  return plan;
}

void LlamaDivision::validate(int ranks, int64_t length, int64_t context) const {
  require(config.heads % ranks == 0, "heads ({}) must be divisible by tp ({})", config.heads, ranks);
  require(config.kv_heads % ranks == 0 || ranks % config.kv_heads == 0,
          "kv-heads ({}) must be divisible by tp ({}), or divide it", config.kv_heads, ranks);
  require(config.ffn % ranks == 0, "ffn ({}) must be divisible by tp ({})", config.ffn, ranks);
  require(!async || sequence_parallel,
          "--async-tp overlaps what sequence parallelism sends; leave it or --no-sequence-parallel out");
  require(!async || f8_linears.empty(),
          "--async-tp cuts products before a tensor is there whole, to which f8 needs the scale; leave it or "
          "--matmul-dtype f8 out");
  require(!sequence_parallel || length / context % ranks == 0,
          "length ({}) must be divisible by {}tp ({}), because sequence parallelism divides the tokens; or add "
          "--no-sequence-parallel",
          length, context > 1 ? fmt::format("cp ({}) x ", context) : "", ranks);
}

void F8Options::declare(Options& options) {
  options.add_choice<std::optional<Dtype>>(
      "--matmul-dtype", matmul_dtype, {{"auto", std::nullopt}, {"f8", Dtype::f8_e4m3}},
      "type of what linear layers multiply; auto: as computed; f8: e4m3 forward, e5m2 gradients, one scale a tensor");
  options.add("--f8-layers", layers, "pattern of the layers whose linear layers multiply in f8");
}

std::string F8Options::pattern(const Options& given, Dtype compute) const {
  require(matmul_dtype || !given.given("--f8-layers"),
          "--f8-layers {} says which layers multiply in f8, but none do; add --matmul-dtype f8", layers);
  require(!matmul_dtype || compute != Dtype::f16,
          "--matmul-dtype f8 scales every tensor by its largest element, and f16 the loss by its overflows; use f32 or "
          "bf16");
  return matmul_dtype ? layers : "";
}

void TensorParallelOptions::declare(Options& options) {
  options.add("--sequence-parallel", sequence_parallel, "divide what lies between the layers by tokens");
  options.add("--loss-parallel", loss_parallel, "compute the loss without gathering the logits");
  options.add("--async-tp", async, "cut matmuls in pieces, so that they overlap with what is sent between them");
  f8.declare(options);
}

std::string TensorParallelOptions::without_effect(int ranks, const Options& given) const {
  std::string text;
  for (const auto& [name, is_on] : {std::pair{"--sequence-parallel", sequence_parallel},
                                    {"--loss-parallel", loss_parallel},
                                    {"--async-tp", async}}) {
    if (ranks == 1 && is_on && given.given(name)) text += fmt::format("{} has no effect: tp is 1\n", name);
  }
  return text;
}

std::string warning_of_slow_links(const Group& group) {
  constexpr int usual_links = 8;
  const auto names = control::gather_bytes(group, host_name());
  const std::set<std::string> hosts(names.begin(), names.end());
  if (hosts.size() > 1) {
    return fmt::format(
        "warning: tp ({}) spans {} hosts, and every layer waits for the links between them; keep it "
        "inside one\n",
        group.size(), hosts.size());
  }
  if (group.size() <= usual_links) return "";
  return fmt::format(
      "warning: tp ({}) is above {}, the ranks that usually share fast links; every layer waits for "
      "them\n",
      group.size(), usual_links);
}

}  // namespace ninefold
