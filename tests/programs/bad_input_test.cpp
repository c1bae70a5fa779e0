// Wrong input that any program may get: options, data, checkpoints; and what data-parallel programs are asked.
#include <cstdlib>

#include "tests/support/bad_input.h"

namespace ninefold {
namespace {

// What any program may be told wrongly.
std::vector<BadInput> bad_for_any() {
  return {
      {"mesh", "--dp-replicate 3", "dp_replicate(3) = 3 ranks, but the job has 4"},
      {"batch", "--batch 6", "batch (6) must be divisible by the data ranks (4); try --batch 8"},
      {"micro_batch", "--batch 24 --micro-batch 4", "batch (24) must be divisible by data ranks (4) x micro-batch (4)"},
      {"micro_batches", "--batch 24 --micro-batch 2 --micro-batches 2", "micro-batches (2) disagrees with batch (24)"},
      {"unknown_option", "--learning-rate 1", "unknown option --learning-rate; did you mean --lr?"},
      {"misspelt_option", "--stepz 3", "unknown option --stepz; did you mean --steps?"},
      {"no_number", "--lr abc", "--lr needs a number, not 'abc'"},
      {"negative", "--steps -1", "--steps (-1) must be at least 0"},
      {"no_folder", "--report {folder}nowhere/report.json", "does not exist; create it first"},
      {"below_a_file", "--trace {folder}short.txt/trace.json", "short.txt"},
      {"bf16_gradients", "--grad-dtype bf16", "--grad-dtype bf16 needs --dtype bf16"},
      {"meta_with_steps", "--device meta --steps 2", "device meta has shapes only and cannot take 2 steps"},
      {"cluster_dimension", "--cluster 'dp=1GB/s,5us'", "--cluster: dp is no dimension of the mesh; there"},
      {"cluster_unit", "--cluster dp_replicate=1Gb/s,5us", "must have one of the units B/s, kB/s, MB/s, GB/s, TB/s"},
      {"cluster_zero", "--cluster dp_replicate=0GB/s,5us", "'dp_replicate=0GB/s,5us' must be above 0"},
      {"cluster_without_link", "--cluster compute=1TF/s",
       "--cluster needs a link for dp_replicate(4), such as dp_replicate=10GB/s,5us"},
      {"cluster_file", "--cluster {folder}missing", "is no file that can be read"},
      {"cluster_of_mpi", "--collectives mpi --cluster dp_replicate=1GB/s,5us",
       "--cluster has no times for the messages of --collectives mpi; use ours or ordered"},
      {"collectives", "--collectives mine", "--collectives must be one of ours, ordered, mpi, nccl, not 'mine'"},
      {"nccl_without_gpus", "--collectives nccl", "--collectives nccl carries tensors of GPUs; add --device cuda"},
      {"no_config", "--config {folder}missing.ini", "missing.ini"},
      {"unknown_key", "--config {folder}unknown_key.ini",
       "unknown_key.ini, line 2: unknown key 'learning-rate'; did you mean lr?"},
  };
}

std::vector<BadInput> bad_for_llama() {
  return {
      {"heads", "--heads 8 --kv-heads 3", "heads (8) must be divisible by kv-heads (3)"},
      {"length", "--length 5000000", "length (5000000) does not fit"},
      {"short_text", "--data {folder}short.txt", "length (16) does not fit"},
      {"missing", "--data {folder}missing.txt", "missing.txt does not exist; check the path"},
      {"empty", "--data {folder}empty.txt", "empty.txt is empty"},
      {"cut_gzip", "--data {folder}cut.txt.gz", "cut.txt.gz is a gzip file that ends in the middle"},
      {"header", "--data {folder}magic.bin", "has a header with magic 7"},
      {"version", "--data {folder}version.bin", "has version 2, but version 1"},
      {"cut_tokens", "--data {folder}cut.bin", "has 8000 bytes behind its header, but the 5000 tokens"},
      {"token", "--data {folder}beyond.bin", "has the token 300 at position 10000, but the vocabulary is 256"},
      {"bad_value", "--config {folder}bad_value.ini", "bad_value.ini, line 1: --threads needs a whole number"},
      {"not_finite", "--lr 1e30 --clip 0 --warmup 0 --no-check", "the loss of step 2 on rank 0 is not finite"},
  };
}

std::vector<BadInput> bad_for_mnist() {
  return {
      {"missing", "--data {folder}missing", "holds neither train-images-idx3-ubyte nor"},
      {"no_images", "--data {folder}no_images", "holds neither train-images-idx3-ubyte nor"},
      {"empty_images", "--data {folder}empty_images", "train-images-idx3-ubyte is empty"},
      {"cut_gzip", "--data {folder}cut_gzip", "is a gzip file that ends in the middle"},
      {"text_images", "--data {folder}text_images", "but an IDX file of bytes with 3 dimension(s) begins with"},
      {"cut_labels", "--data {folder}cut_labels", "t10k-labels-idx1-ubyte is cut"},
      {"large_batch", "--batch 20000", "batch (20000) is larger than the data set (10000 samples)"},
      {"steps_and_epochs", "--epochs 1", "--epochs (1) and --steps both say how long to train"},
      {"shape", "--dim 32", "--dim shapes a Llama, but the MNIST CNN has one shape only; leave --dim out"},
      {"not_finite", "--lr 1e38 --no-check", "is not finite"},
  };
}

std::vector<BadInput> bad_for_buckets() {
  return {
      {"no_bucket", "--bucket-mb 0", "--bucket-mb (0) must be at least 0.001"},
      {"negative_bucket", "--bucket-mb -25", "--bucket-mb (-25) must be at least 0.001"},
      {"reduce_dtype", "--reduce-dtype bf16", "--reduce-dtype bf16 needs --grad-dtype bf16"},
      {"graph_on_the_cpu", "--cuda-graph", "--cuda-graph is for GPUs; add --device cuda, or leave it out"},
      {"graph_of_f16", "--cuda-graph --dtype f16", "--cuda-graph repeats one loss scale, but that of f16 changes"},
      {"variant", "--variant lazy", "--variant must be one of naive, flat, bucketed, overlapped, not 'lazy'"},
  };
}

std::vector<BadInput> bad_for_sharding() {
  return {
      {"stage", "--stage 4", "--stage (4) must be at most 3"},
      {"mesh", "--dp-shard 3", "dp_shard(3) = 3 ranks, but the job has 4"},
      {"reshard", "--reshard sometimes", "--reshard must be one of default, always, never, not 'sometimes'"},
      {"prefetch", "--prefetch -1", "--prefetch (-1) must be at least 0"},
      {"replicas", "--dp-replicate 3", "dp_replicate(3) x dp_shard"},
      {"recompute", "--recompute every:3", "every:3 chooses none of the 2 layers that match layers.*"},
      {"wrap", "--wrap size:0", "--wrap size:0 needs a number of parameters from 1 after \"size:\""},
      {"reduce_each", "--reduce-each-micro-batch --stage 1", "--reduce-each-micro-batch needs --stage 2 or 3"},
      {"dtype", "--dtype fp16", "--dtype must be one of f32, bf16, f16, not 'fp16'; did you mean f16?"},
      {"param_dtype", "--param-dtype bfloat16", "--param-dtype must be one of auto, f32, bf16, f16, not 'bfloat16'"},
      {"param_dtype_of_stage_2", "--param-dtype bf16 --stage 2", "--param-dtype bf16 needs --stage 3"},
      {"reduce_dtype", "--reduce-dtype f8", "--reduce-dtype must be one of f32, bf16, not 'f8'"},
      {"narrow_sum", "--reduce-dtype bf16 --param-dtype bf16", "--reduce-dtype bf16 needs --grad-dtype bf16"},
      {"output_dtype", "--output-dtype i32", "--output-dtype must be one of auto, f32, bf16, f16, not 'i32'"},
      {"offload", "--offload disk", "--offload must be one of none, pinned, pageable, not 'disk'"},
      {"offload_of_stage_0", "--offload pinned --stage 0", "--offload needs --stage 1, 2 or 3"},
      {"gather_dtype", "--gather-dtype e4m3", "--gather-dtype must be one of auto, f8, not 'e4m3'"},
      {"gather_of_stage_1", "--gather-dtype f8 --stage 1", "--gather-dtype f8 needs --stage 3"},
      {"f16_gradients", "--dtype f16 --grad-dtype f16", "--grad-dtype f16 would lose what the loss scale saves"},
      {"other_gradients", "--param-dtype f16 --grad-dtype bf16", "--grad-dtype bf16 needs --dtype bf16"},
      {"scale", "--init-scale 0", "--init-scale (0) must be at least 1"},
      {"backoff", "--backoff-factor 2", "--backoff-factor (2) must be at most 1"},
  };
}

std::vector<BadInput> bad_for_checkpoints() {
  return {
      {"every", "--every 2", "--every needs --checkpoint FOLDER"},
      {"meta", "--device meta --steps 0 --checkpoint {folder}checkpoints", "device meta has shapes only: there is"},
      {"below_a_file", "--checkpoint {folder}short.txt/run", "the folder cannot be made"},
      {"there_are_some", "--checkpoint {folder}checkpoints",
       "there are checkpoints up to step 4 already; add --resume"},
      {"other_sizes", "--checkpoint {folder}checkpoints --resume",
       "step_4/config.json is of another model: head_dim is 16 there, and 64 in this run"},
      {"no_folder", "--init-from {folder}nowhere", "nowhere/config.json does not exist"},
      {"size", "--init-from {folder}cut --dim 32", "--dim 32 disagrees with"},
      {"cut", "--init-from {folder}cut", "cut/model.safetensors: the tensor lm_head.weight is larger than the file"},
      {"header", "--init-from {folder}long_header", "its header would be 9223372036854775808 bytes long"},
      {"missing_tensor", "--init-from {folder}missing_tensor", "missing_tensor has no tensor model.norm.weight"},
      {"past_the_end", "--init-from {folder}past_the_end",
       "the tensor model.norm.weight lies at [574976, 575236), but the tensors have 575232 bytes"},
      {"shape", "--init-from {folder}other_shape",
       "model.layers.0.mlp.gate_proj.weight has the shape [128, 64], but this model needs [120, 64]"},
  };
}

std::vector<BadInput> bad_for_the_bench() {
  return {
      {"sizes", "-b 8 -e 4", "-b (8) must not be above -e (4)"},
      {"no_size", "-b 8x", "-b needs a number of bytes like 8, 4K, 1M or 2G, not '8x'"},
      {"algorithm", "--algorithm rings", "all_reduce has no algorithm 'rings': there are ours, mpi, ring, "},
      {"collective", "--collective all_redcue", "all_redcue"},
  };
}

constexpr std::string_view mnist = "--model mnist_cnn --batch 12 --steps 4 --no-measure-peak";

TEST(BadInput, OfAnyTraining) {
  const std::string replicas = fmt::format("{} --dp-replicate 4 --dp-shard 1", tiny_llama);
  expect_refused(NINEFOLD_09_TRAIN, replicas, bad_for_any() + bad_for_llama());
}

TEST(BadInput, OfDataParallelLlama) { expect_refused(NINEFOLD_02_TRAIN, tiny_llama, bad_for_buckets()); }

// What OfAnyTraining tries with another program.
TEST(WholeProduct, OfDataParallelTraining) {
  expect_refused(NINEFOLD_02_TRAIN, tiny_llama, bad_for_llama());
  expect_refused(NINEFOLD_02_TRAIN, mnist, bad_for_any());
}

TEST(BadInput, OfCheckpoints) {
  expect_refused(NINEFOLD_09_TRAIN, "--length 16 --batch 12 --steps 4 --no-measure-peak", bad_for_checkpoints());
}

TEST(BadInput, OfDataParallelMnist) {
  const std::vector<BadInput> model = {
      {"model", "--model mnist_cmm", "--model must be one of llama, mnist_cnn, not 'mnist_cmm'"},
      {"graph", "--cuda-graph", "--cuda-graph repeats one step's dropout, but mnist_cnn has another in every step"}};
  expect_refused(NINEFOLD_02_TRAIN, mnist, bad_for_mnist() + model);
}

// An epoch has an evaluation of its own.
TEST(BadInput, OfEpochs) {
  expect_refused(NINEFOLD_02_TRAIN, "--model mnist_cnn --epochs 1",
                 {"eval_every", "--eval-every 5", "--eval-every needs --steps: an epoch ends with an evaluation"});
  expect_refused(NINEFOLD_02_TRAIN, "--model mnist_cnn",
                 {"eval_batches", "--eval-batches 5", "--eval-batches needs --steps"});
}

TEST(BadInput, OfShardedTraining) {
  expect_refused(NINEFOLD_03_TRAIN, tiny_llama, bad_for_sharding());
  expect_refused(NINEFOLD_03_MNIST, "--epochs 1", {"steps_and_epochs", "--steps 4", "--epochs (1) and --steps both"});
  expect_refused(NINEFOLD_03_MNIST, "--batch 8", {"batch_size", "--batch-size 8", "are two names of one number"});
}

// What looks odd, but trains: a sentence says what became of it.
TEST(OddInput, OfShardedTrainingIsExplained) {
  for (const auto& [wrap, sentence] :
       {std::pair("layer.*",
                  "warning: --wrap layer.* matches no layer, so it makes no unit; the layers are "
                  "tok_embeddings, layers.0, "),
        std::pair("size:1000000",
                  "--wrap size:1000000: no layer has so many parameters, so they all are one unit\n")}) {
    Command command(2, fmt::format("{} {} --steps 1 --wrap '{}'", NINEFOLD_03_TRAIN, tiny_llama, wrap));
    EXPECT_EQ(command.finish(), 0) << command.output();
    EXPECT_NE(command.output().find(sentence), std::string::npos) << command.output();
    EXPECT_NE(command.output().find("check passed"), std::string::npos) << command.output();
  }
}

// Whether the programs were built for GPUs or not.
TEST(BadInput, NoGpu) {
  if (std::system("nvidia-smi >/dev/null 2>&1") == 0) return;
  const std::vector<std::string> programs = {NINEFOLD_01_BENCH, NINEFOLD_02_TRAIN, NINEFOLD_03_TRAIN, NINEFOLD_03_MNIST,
                                             NINEFOLD_04_TRAIN, NINEFOLD_05_TRAIN, NINEFOLD_06_TRAIN, NINEFOLD_07_TRAIN,
                                             NINEFOLD_08_TRAIN, NINEFOLD_09_TRAIN};
  for_each_at_once(programs, [](const std::string& program) {
    expect_refused(program, "", BadInput{program, "--device cuda", "use --device cpu"});
  });
}

TEST(BadInput, OfTheBench) { expect_refused(NINEFOLD_01_BENCH, "", bad_for_the_bench()); }

// More ranks than elements, and more segments than bytes.
TEST(SmallInput, IsNoBadInput) {
  Command command(4, fmt::format("{} --collective all -b 4 -e 4 --segment 64 --rounds 1 -n 1", NINEFOLD_01_BENCH));
  EXPECT_EQ(command.finish(), 0) << command.output();
  EXPECT_NE(command.output().find("# wrong elements: 0 OK"), std::string::npos) << command.output();
}

// One rank is killed in the middle: the others end within seconds, and the report of before is still there.
void expect_a_killed_rank_to_end_the_job(const std::string& program, const std::string& options) {
  const TemporaryFolder folder;
  const std::string report = folder.write("report.json", "precious");
  Command command(4,
                  fmt::format("{} {} --steps 1000000 --log-every 1 --no-check --report {}", program, options, report));
  command.read_until("\n      2 ");
  const std::vector<pid_t> ranks = command.processes("train");
  ASSERT_EQ(ranks.size(), 4u) << command.output();
  const auto killed = std::chrono::steady_clock::now();
  ::kill(ranks[2], SIGKILL);
  EXPECT_NE(command.finish(), 0);
  EXPECT_TRUE(command.left_nothing());
  EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(10));
  EXPECT_EQ(folder.read("report.json"), "precious");
}

TEST(BadInput, AKilledRankEndsTheCombinedTrainer) {
  expect_a_killed_rank_to_end_the_job(NINEFOLD_09_TRAIN, std::string(tiny_llama));
}

TEST(BadInput, AKilledRankEndsDataParallelTraining) {
  expect_a_killed_rank_to_end_the_job(NINEFOLD_02_TRAIN, std::string(mnist));
}

}  // namespace
}  // namespace ninefold
