// Meshes, stages and schedules that do not fit, and other wrong input to the programs of chapters 04 to 09.
#include "tests/support/bad_input.h"

namespace ninefold {
namespace {

std::vector<BadInput> bad_for_tensor_parallelism() {
  return {
      {"heads", "--tp 4 --heads 2", "heads (2) must be divisible by tp (4)"},
      {"kv_heads", "--tp 4 --heads 12 --kv-heads 3 --dim 96", "kv-heads (3) must be divisible by tp (4), or divide it"},
      {"ffn", "--tp 4 --ffn 50", "ffn (50) must be divisible by tp (4)"},
      {"length", "--tp 4 --length 30", "length (30) must be divisible by tp (4), because sequence parallelism divides"},
      {"too_few", "--tp 2", "tp(2) = 2 ranks, but the job has 4"},
      {"stage", "--tp 4 --stage 1", "--stage 1 divides states over --dp-shard, but that is 1; add --dp-shard 2"},
      {"too_many", "--tp 4 --dp-shard 2", "dp_shard(2) x tp(4) = 8 ranks, but the job has 4"},
      {"async", "--tp 4 --async-tp --no-sequence-parallel", "--async-tp overlaps what sequence parallelism sends"},
      {"no_tp", "--tp 0", "--tp (0) must be at least 1"},
      {"output_dtype", "--tp 4 --output-dtype bf16", "--output-dtype is not for tensor parallelism"},
      {"matmul_dtype", "--tp 4 --matmul-dtype f4", "--matmul-dtype must be one of auto, f8, not 'f4'"},
      {"f8_async", "--tp 4 --matmul-dtype f8 --async-tp", "--async-tp cuts products before a tensor is there whole"},
      {"f8_f16", "--tp 4 --matmul-dtype f8 --dtype f16", "--matmul-dtype f8 scales every tensor by its largest"},
      {"f8_layers", "--tp 4 --f8-layers 'layers.*'", "--f8-layers layers.* says which layers multiply in f8, but none"},
      {"f8_head", "--tp 4 --matmul-dtype f8 --f8-layers '*'", "f8 layers * take in output, whose scores"},
      {"f8_nothing", "--tp 4 --matmul-dtype f8 --f8-layers blocks", "f8 layers blocks are no linear layers"},
      {"f8_shared", "--tp 4 --matmul-dtype f8 --f8-layers 'layers.*.attention.wq'",
       "layers.0.attention.wq multiplies in f8 and layers.0.attention.wk does not, but they share one input"},
  };
}

std::vector<BadInput> bad_for_context_parallelism() {
  return {
      {"length", "--length 20",
       "length (20) must be divisible by 2 x cp = 8 for the layout zigzag over cp (4); try --"},
      {"striped", "--layout striped --length 30", "length (30) must be divisible by 4 for the layout striped over cp"},
      {"kv_heads", "--layout ulysses", "but there are 2: at most 2 ranks can share them; for more use --layout hybrid"},
      {"layout", "--layout zigzags", "--layout must be one of contiguous, striped, zigzag, gathered, ulysses, hybrid"},
      {"neighbours", "--layout hybrid --ulysses 3", "--ulysses (3) must divide --cp (4)"},
      {"neighbours_of_a_ring", "--ulysses 2", "--ulysses (2) is for --layout hybrid; with zigzag leave it out"},
      {"too_few", "--cp 2", "cp(2) = 2 ranks, but the job has 4"},
      {"limit", "--memory-limit 10kB", "memory limit of 10.0 kB has no room for"},
      {"no_limit", "--memory-limit 1000", "--memory-limit needs 1B or more, with one of B, kB, MB, GB, TB, such"},
      {"limit_below_a_byte", "--memory-limit 0.4B", "--memory-limit needs 1B or more"},
      {"more_than_an_int", "--cp 4294967298", "4294967298 ranks along one dimension of the mesh are more than any job"},
      {"more_than_all", "--cp 2000000000 --dp-shard 2000000000 --dp-replicate 2000000000",
       "are more ranks than any job"},
      {"neighbours_beyond_an_int", "--ulysses 4294967298", "--ulysses (4294967298) is beyond what the option can hold"},
  };
}

std::vector<BadInput> bad_for_stages() {
  return {
      {"too_many", "--layers 3", "the model has 3 layers, too few for 4 stages; a stage needs at least one"},
      {"sum", "--layers-per-stage 2,3,2,2", "--layers-per-stage 2,3,2,2 counts more than the 8 layers of the model"},
      {"short", "--layers-per-stage 2,1,2,2", "--layers-per-stage 2,1,2,2 counts 7 layers, but the model has 8"},
      {"stages", "--layers-per-stage 4,4", "--layers-per-stage 4,4 is for 2 stages, but there are 4"},
      {"no_number", "--layers-per-stage 2,two,2,2", "'two' is no number of layers"},
      {"mesh", "--pp 3", "pp(3)"},
  };
}

// Every kind of wrong table is tried with 06/show.
std::vector<BadInput> bad_for_pipelines() {
  return {
      {"interleaved", "--schedule interleaved --micro-batches 6 --batch 6",
       "interleaved needs micro-batches (6) divisible by stages (4)"},
      {"dualpipe", "--schedule dualpipe --micro-batches 3", "dualpipe needs even numbers of stages (4) and"},
      {"none", "--micro-batches 0", "--micro-batches (0) must be at least 1"},
      {"too_many_virtual", "--schedule interleaved --micro-batches 4 --virtual-stages 3",
       "the model has 8 layers, too few for 12 stages"},
      {"virtual", "--schedule gpipe --virtual-stages 2", "--virtual-stages is for interleaved; gpipe has its own"},
      {"unknown", "--schedule zb-h3", "--schedule must be one of gpipe, 1f1b, interleaved"},
      {"two", "--schedule gpipe --schedule-csv {folder}twice.csv", "--schedule-csv and --schedule exclude each other"},
      {"reshard", "--reshard always", "--reshard is for stages that are divided; add --dp-shard 2"},
      {"csv_cycle", "--schedule-csv {folder}cycle.csv", "row 1 (rank 0), column 2: 0B0 cannot start: it needs 1B0"},
      {"csv_ranks", "--schedule-csv {folder}ranks.csv", "row 5 (rank 4), column 1: 4F0 is on a rank too many"},
      {"csv_file", "--schedule-csv {folder}nowhere.csv", "nowhere.csv"},
      {"csv_unsharded", "--schedule-csv {folder}unsharded.csv", "but the schedule has no 0UNSHARD"},
      {"times", "--times {folder}nowhere/times.txt", "does not exist; create it first"},
      {"tied", "--tied-embeddings --pp 2 --dp-shard 2", "--tied-embeddings are in two stages"},
  };
}

// All of them are tried in tests/09_combined_3d/train_test.cpp; these show how the program ends.
std::vector<BadInput> bad_for_combinations() {
  return {
      {"too_many", "--pp 2 --tp 4", "pp(2) x dp_shard(auto) x tp(4) needs a multiple of 8 ranks, but the job has 4"},
      {"cp", "--cp 4 --length 20", "length (20) must be divisible by 2 x cp = 8 for the layout zigzag over cp (4)"},
      {"no_cp", "--dp-shard 4 --layout ulysses",
       "--layout is for sequences that ranks share, but --cp is 1; add --cp 2"},
      {"no_experts", "--dp-shard 4 --ep 2", "ep (2) ranks divide experts, but there are none; add --experts 8"},
      {"ep", "--dp-replicate 2 --dp-shard 2 --ep 4 --experts 4", "ep (4) must divide dp_shard(2) x cp(1) = 2 ranks"},
      {"scope", "--pp 2 --experts 4 --balance-scope batch",
       "of which a stage of a pipeline (pp 2) has some; use sequence"},
      {"no_pipeline", "--tp 2 --schedule zb-v", "--schedule is for a pipeline, but --pp is 1; add --pp 2"},
      {"no_shards", "--dp-replicate 4 --stage 1", "--stage 1 divides states over --dp-shard, but that is 1"},
      {"mesh_order", "--mesh-order tp,pp", "--mesh-order tp,pp must name each of pp, dp_replicate, dp_shard, cp and"},
      {"graph", "--tp 4 --cuda-graph", "but the 4 ranks of tp exchange something within it; use --dp-replicate for"},
      {"graph_of_experts", "--dp-replicate 4 --experts 4 --cuda-graph", "but --experts (4) are chosen in every step"},
      {"f8", "--pp 2 --matmul-dtype f8", "--matmul-dtype f8 is not for a pipeline (pp 2); leave it out"},
      {"units", "--pp 2 --wrap size:20000", "--wrap and --prefetch are not for a pipeline"},
  };
}

std::vector<BadInput> bad_for_experts() {
  return {
      {"top_k", "--experts 4 --top-k 5", "top-k (5) must be from 1 to experts (4)"},
      {"capacity_zero", "--capacity-factor 0", "--capacity-factor (0) must be at least 0.01"},
      {"capacity_negative", "--capacity-factor -1", "--capacity-factor (-1) must be at least 0.01"},
      {"dropless", "--dropless --capacity-factor 1.25",
       "--dropless and --capacity-factor (1.25) contradict each other"},
      {"router", "--router softmaxx", "--router must be one of softmax, topk_softmax, sigmoid, not 'softmaxx'"},
      {"balance", "--balance loss", "--balance must be one of none, auxiliary, bias, not 'loss'"},
      {"experts", "--experts -2", "--experts (-2) must be at least 0"},
      {"no_experts", "--experts 0", "there is nothing to divide: --experts must be at least 1"},
      {"ep_of_experts", "--experts 6 --ep 4", "experts (6) must be divisible by ep (4)"},
      {"ep_of_ranks", "--experts 6 --ep 3", "ep (3) must divide the data-parallel ranks (4)"},
      {"too_many", "--ep 2 --dp-shard 4", "dp_shard(4) x ep(2) = 8 ranks, but the job has 4"},
      {"expert_tp", "--expert-tp 2 --ffn 25", "ffn (25) must be divisible by expert_tp (2)"},
  };
}

constexpr std::string_view llama_in_stages =
    "--dim 32 --layers 8 --heads 4 --kv-heads 2 --ffn 48 --length 16 --batch 12 --steps 4 --no-measure-peak";

TEST(BadInput, OfModelParallelism) {
  expect_refused(NINEFOLD_04_TRAIN, llama_in_stages, bad_for_stages());
  expect_refused(NINEFOLD_04_TRAIN, std::string(llama_in_stages),
                 {"micro_batches", "--micro-batches 2", "takes the whole batch through the stages at once"});
  expect_refused(NINEFOLD_04_TRAIN, "--model mlp", {"mlp", "--heads 2", "an MLP has --layers and --dim only"});
}

TEST(BadInput, OfPipelines) {
  expect_refused(NINEFOLD_06_TRAIN, std::string(llama_in_stages), bad_for_stages().front());
  expect_refused(NINEFOLD_06_TRAIN, llama_in_stages, bad_for_pipelines());
}

TEST(BadInput, OfTensorParallelism) { expect_refused(NINEFOLD_05_TRAIN, tiny_llama, bad_for_tensor_parallelism()); }

TEST(BadInput, OfContextParallelism) { expect_refused(NINEFOLD_07_TRAIN, tiny_llama, bad_for_context_parallelism()); }

TEST(BadInput, OfExperts) { expect_refused(NINEFOLD_08_TRAIN, tiny_llama, bad_for_experts()); }

TEST(BadInput, OfCombinations) { expect_refused(NINEFOLD_09_TRAIN, tiny_llama, bad_for_combinations()); }

}  // namespace
}  // namespace ninefold
