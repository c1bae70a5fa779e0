// The rules by which the lesson chooses a mesh hold in virtual time, with the formulas that it gives.
#include "tests/09_combined_3d/combined.h"

namespace ninefold {
namespace {

// Links inside a node and between nodes, for ranks of 1 GFLOP/s: R is 7 FLOPs a byte inside, and 64 between.
constexpr double inside = 7, between = 64;

constexpr int64_t dim = 64, ffn = 176;  // the proportion of the lesson's Llama
constexpr std::string_view model = "--dim 64 --heads 8 --kv-heads 8 --ffn 176 --length 32 --no-check";

std::string link(const std::string& dimension, double flops_per_byte) {
  return fmt::format("{}={:.9g}MB/s,1us", dimension, 1e3 / flops_per_byte);
}

// `links` are joined by line ends, because words are divided at spaces.
RunRecord run(const std::string& words, const std::string& links) {
  return train_combined(fmt::format("{} {} --cluster {}\ncompute=1GF/s", model, words, links)).record;
}

double milliseconds(const std::string& words, const std::string& links) {
  return run(words, links).virtual_milliseconds_per_step();
}

// Ten messages a layer, of which every rank sends its part to all others, beside 6 FLOPs a weight and token.
TEST(TensorParallelism, ExposesWhatTheFormulaSays) {
  for (const int tp : {2, 4, 8}) {
    const RunRecord record =
        run(fmt::format("--dp-shard {} --tp {} --batch 16", 8 / tp, tp),
            link("tp", inside) + "\n" + link("dp_shard", 1e-3));  // so that the states cost nothing
    const double exposed = record.exposed.by_dimension.at("tp");
    const double share = exposed / (record.virtual_milliseconds_per_step() - record.exposed.virtual_milliseconds);
    const double weights = 4.0 * dim * dim + 3.0 * dim * ffn;  // of a layer
    const double formula = 10.0 * dim * 4 * inside * (tp - 1) / (6 * weights);
    EXPECT_NEAR(share, formula, 0.2 * formula) << "tp " << tp;
  }
}

TEST(TensorParallelism, BelongsInsideANode) {
  const std::string mesh = "--dp-shard 2 --tp 4 --batch 16";
  const double within = milliseconds(mesh, link("tp", inside) + "\n" + link("dp_shard", between));
  const double across = milliseconds(mesh + " --mesh-order tp,pp,dp_replicate,dp_shard,cp",
                                     link("tp", between) + "\n" + link("dp_shard", inside));
  EXPECT_LT(1.5 * within, across);
}

// Two nodes, four ranks of tp in each. FSDP asks for R e/2 (n - 1)/n tokens: here for R.
TEST(BetweenNodes, ShardsNeedTokensAndStagesNeedMicroBatches) {
  const auto time_of = [&](const std::string& mesh, double network) {
    return milliseconds(mesh + " --tp 4 --batch 8",
                        link("tp", inside) + "\n" + link("dp_shard", network) + "\n" + link("pp", network));
  };
  const std::string shards = "--dp-shard 2", stages = "--pp 2 --micro-batches 8";
  const double tokens = 4 * 32;  // of a data rank
  EXPECT_LT(time_of(shards, tokens / 2), time_of(stages, tokens / 2));
  EXPECT_GT(time_of(shards, tokens * 3), time_of(stages, tokens * 3));
}

// A stage of two layers among eight sets the pace of all; units are divided as buffers.
TEST(UnevenStages, CostAPipelineALayerAndShardsAShare) {
  const auto time_of = [&](const std::string& mesh, int layers) {
    return milliseconds(fmt::format("{} --layers {} --batch 32", mesh, layers),
                        link("pp", inside) + "\n" + link("dp_shard", inside));
  };
  const std::string stages = "--pp 8 --micro-batches 32", shards = "--dp-shard 8";
  EXPECT_GT(time_of(stages, 9), 1.3 * time_of(stages, 8));
  EXPECT_LT(time_of(shards, 9), 1.2 * time_of(shards, 8));
}

// What a pipeline sends grows with the tokens of a step; what the sums of gradients send does not.
TEST(SlowestLinks, BelongToThatWhichSendsLess) {
  const auto time_of = [&](const std::string& order, double pp, double dp, int batch) {
    return milliseconds(
        fmt::format("--pp 2 --dp-shard 2 --tp 2 --stage 1 --micro-batches 8 --mesh-order {} --batch {}", order, batch),
        link("tp", inside) + "\n" + link("pp", pp) + "\n" + link("dp_shard", dp));
  };
  const auto stages_outside = [&](int batch) {
    return time_of("pp,dp_replicate,dp_shard,cp,tp", 8 * between, between, batch);
  };
  const auto data_outside = [&](int batch) {
    return time_of("dp_replicate,dp_shard,pp,cp,tp", between, 8 * between, batch);
  };
  EXPECT_LT(stages_outside(16), data_outside(16));
  EXPECT_GT(stages_outside(256), data_outside(256));
}

}  // namespace
}  // namespace ninefold
