// Every mesh: all factorisations of the ranks over pp, dp_replicate, dp_shard, cp and tp, each with other options of
// its techniques, equal the serial model and keep their books. The short form takes some of the meshes once; the full
// one all of them and a sample of many ways, on 1 to 16 ranks (./run test --full -R sweep).
#include <random>

#include "06_pipeline/generators/generators.h"
#include "tests/09_combined_3d/combined.h"

namespace ninefold {
namespace {

// As deep, as many heads and experts as the ranks can divide, and a batch and features that they can, whatever their
// number.
int layers() { return (std::max(job_size(), 8) + job_size() - 1) / job_size() * job_size(); }
int batch() { return job_size() < 16 ? 2 * layers() : job_size(); }
int dim() { return job_size() < 16 ? 4 * layers() : 2 * layers(); }
// Fewer than the ranks where these are a power of two.
int kv_heads() { return 16 % job_size() == 0 ? 2 : layers(); }

struct Sizes {
  int pp, dp_replicate, dp_shard, cp, tp;
};

std::vector<Sizes> factorisations(int ranks) {
  std::vector<Sizes> all;
  for (int pp = 1; pp <= ranks; ++pp) {
    for (int replicas = 1; replicas <= ranks / pp; ++replicas) {
      for (int shards = 1; shards <= ranks / pp / replicas; ++shards) {
        for (int cp = 1; cp <= ranks / pp / replicas / shards; ++cp) {
          const int rest = ranks / pp / replicas / shards / cp;
          if (pp * replicas * shards * cp * rest == ranks) all.push_back({pp, replicas, shards, cp, rest});
        }
      }
    }
  }
  return all;
}

// The same choices on every rank and in every run.
class Choice {
 public:
  explicit Choice(uint32_t seed) : engine_(seed) {}
  std::string of(const std::vector<std::string>& words) { return " " + words[below(words.size())]; }
  size_t below(size_t count) { return engine_() % count; }

 private:
  std::mt19937 engine_;
};

// As many micro-batches as divide a rank's batch, up to 4, and a schedule that takes them.
std::string schedule_of(const Sizes& mesh, Choice& choice) {
  const int local = batch() / (mesh.dp_replicate * mesh.dp_shard);
  int micro_batches = std::min(local, 4);
  while (local % micro_batches != 0) --micro_batches;
  std::vector<std::string> fitting;
  for (const std::string& name : pipeline::generator_names()) {
    const bool fits = name == "interleaved" ? micro_batches % mesh.pp == 0 && 2 * mesh.pp <= layers()
                      : name == "dualpipe"  ? micro_batches % 2 == 0 && mesh.pp % 2 == 0
                      : name == "zb-v"      ? 2 * mesh.pp <= layers()
                                            : true;
    if (fits) fitting.push_back("--schedule " + name);
  }
  return fmt::format("{} --micro-batches {}", choice.of(fitting), micro_batches);
}

std::string layout_of(const Sizes& mesh, Choice& choice) {
  std::vector<std::string> fitting = {"--layout zigzag", "--layout contiguous", "--layout striped --no-overlap",
                                      "--layout gathered"};
  if (layers() % (mesh.cp * mesh.tp) == 0) fitting.push_back(fmt::format("--layout ulysses --kv-heads {}", layers()));
  if (mesh.cp % 2 == 0 && mesh.tp == 1) fitting.push_back("--layout hybrid");
  return choice.of(fitting);
}

std::string experts_of(const Sizes& mesh, Choice& choice) {
  std::vector<std::string> fitting;
  for (int ep = 1; ep <= mesh.dp_shard * mesh.cp; ++ep) {
    if (mesh.dp_shard * mesh.cp % ep == 0 && layers() % ep == 0) fitting.push_back(fmt::format("--ep {}", ep));
  }
  return fmt::format(" --experts {} --ffn {}", layers(), 2 * layers()) + choice.of(fitting) +
         choice.of({"", "--top-k 1"}) +
         choice.of({"", "", "--capacity-factor 1", "--capacity-factor 1 --token-drop-policy probs"}) +
         choice.of({"", "--router sigmoid", "--router topk_softmax"}) +
         choice.of({"", "--balance bias", mesh.pp == 1 ? "--balance-scope batch" : ""}) +
         choice.of({"", "--shared-experts 1"});
}

std::string options_of(const Sizes& mesh, uint32_t seed) {
  Choice choice(seed);
  std::string words = fmt::format(
      "--pp {} --dp-replicate {} --dp-shard {} --cp {} --tp {} --batch {} --dim {} --kv-heads {} --ffn {}", mesh.pp,
      mesh.dp_replicate, mesh.dp_shard, mesh.cp, mesh.tp, batch(), dim(), kv_heads(), 6 * layers());
  if (mesh.pp > 1) words += schedule_of(mesh, choice);
  if (mesh.pp == 1) words += choice.of({"", "--micro-batch 1"});
  const bool has_experts = choice.below(3) == 0;
  if (mesh.dp_shard > 1) {
    words += choice.of({"--stage 0", "--stage 1", "--stage 2", "--stage 3", "--stage 3 --reshard always",
                        "--stage 2 --offload pinned", "--stage 3 --offload pageable"});
  }
  if (mesh.cp > 1) words += layout_of(mesh, choice);
  if (mesh.tp > 1) {
    words += choice.of({"", "--async-tp", "--no-sequence-parallel"}) + choice.of({"", "--no-loss-parallel"});
  }
  if (mesh.pp == 1 || mesh.dp_shard == 1) words += choice.of({"", "--tied-embeddings"});
  words += choice.of({"", "--recompute full", "--recompute selective", "--recompute every:2"});
  // Where partial sums are rounded, the bound of bf16 speaks of averages, and a norm of 32 elements has none to speak
  // of.
  if (mesh.tp == 1 && mesh.cp == 1) words += choice.of({"", "", "--dtype bf16", "--dtype bf16 --grad-dtype bf16"});
  words += choice.of({"", "--mesh-order tp,dp_shard,cp,dp_replicate,pp"}) + choice.of({"", "--collectives ordered"});
  if (has_experts) words += experts_of(mesh, choice);
  if (!has_experts) words += choice.of({"", "", fmt::format("--ffn {}", 2 * layers())});  // narrower than dim
  return words + fmt::format(" --layers {0} --heads {0} --length {1}", layers(), 2 * layers());
}

TEST(Sweep, SomeMeshesAreTheSerialModel) {
  const std::vector<Sizes> meshes = factorisations(job_size());
  const size_t step = (meshes.size() + 9) / 10;
  for (size_t i = 0; i < meshes.size(); i += step) expect_equal_to_serial(options_of(meshes[i], i));
}

TEST(WholeProduct, EveryMeshIsTheSerialModel) {
  uint32_t seed = 0;
  for (const Sizes& mesh : factorisations(job_size())) expect_equal_to_serial(options_of(mesh, seed++));
}

// 25 on each number of ranks.
TEST(WholeProduct, ASampleOfManyWays) {
  const std::vector<Sizes> meshes = factorisations(job_size());
  Choice choice(static_cast<uint32_t>(job_size()));
  for (uint32_t seed = 1000; seed < 1025; ++seed) {
    expect_equal_to_serial(options_of(meshes[choice.below(meshes.size())], seed));
  }
}

}  // namespace
}  // namespace ninefold
