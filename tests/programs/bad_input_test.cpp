// Wrong input to the programs: one sentence on rank 0 that names the value, the rule and the fix, a non-zero exit code,
// no process left, and every file as it was.
#include <cstring>

#include "tests/support/command.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

const std::string data_folder = NINEFOLD_DATA;

struct BadInput {
  std::string name;
  std::string options;   // {} is the folder of bad files
  std::string sentence;  // a part of it
};

std::string file_content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A file of llm.c's layout: 256 words of header, then 16-bit tokens.
std::string token_file(int32_t magic, int32_t version, int32_t announced, size_t tokens) {
  std::string content(256 * sizeof(int32_t) + 2 * tokens, '\0');
  const int32_t header[] = {magic, version, announced};
  std::memcpy(content.data(), header, sizeof header);
  return content;
}

// The embedded MNIST with another file in place of one of the four.
void write_mnist(const TemporaryFolder& folder, const std::string& name, const std::string& replaced,
                 const std::string& content) {
  std::filesystem::create_directory(folder.path(name));
  for (const std::string file :
       {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    if (file == replaced) continue;
    std::filesystem::create_symlink(data_folder + "/mnist/" + file + ".gz", folder.path(name + "/" + file + ".gz"));
  }
  if (!content.empty() || name == "empty_images") folder.write(name + "/" + replaced, content);
}

// A model's folder with another text in place of `text` in one of its files.
void write_model(const TemporaryFolder& folder, const std::string& name, const std::string& file,
                 const std::string& text, const std::string& other) {
  std::filesystem::create_directories(folder.path(name));
  for (const std::string one : {"config.json", "model.safetensors"}) {
    std::string content = file_content(NINEFOLD_TEST_DATA "/hf_llama/" + one);
    if (one == file) content.replace(content.find(text), text.size(), other);
    folder.write(name + "/" + one, content);
  }
}

void write_bad_models(const TemporaryFolder& folder) {
  const std::string model = "model.safetensors", norm = "\"model.norm.weight\"";
  write_model(folder, "missing_tensor", model, norm, "\"model.morn.weight\"");
  write_model(folder, "other_shape", "config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 120");
  write_model(folder, "checkpoints/step_4", "", "", "");
  write_model(folder, "long_header", "", "", "");
  std::string content = folder.read("long_header/" + model);
  folder.write("long_header/" + model, content.replace(0, 8, std::string("\0\0\0\0\0\0\0\x80", 8)));
  write_model(folder, "cut", "", "", "");
  folder.write("cut/" + model, file_content(NINEFOLD_TEST_DATA "/hf_llama/" + model).substr(0, 5000));
}

void write_bad_files(const TemporaryFolder& folder) {
  write_bad_models(folder);
  const std::string text = file_content(data_folder + "/kjv.txt.gz");
  const std::string images = file_content(data_folder + "/mnist/train-images-idx3-ubyte.gz");
  folder.write("empty.txt", "");
  folder.write("short.txt", "In the beginning");
  folder.write("cut.txt.gz", text.substr(0, text.size() / 2));
  folder.write("magic.bin", token_file(7, 1, 5000, 5000));
  folder.write("version.bin", token_file(20240520, 2, 5000, 5000));
  folder.write("cut.bin", token_file(20240520, 1, 5000, 4000));
  folder.write("beyond.bin", std::string(20000, '\0') + "\x2c\x01");  // the last token is 300
  folder.write("twice.csv", "0F0,0B0,0F0\n1F0,1B0\n2F0,2B0\n3F0,3B0\n");
  folder.write("cycle.csv", "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n2F0,2F1,2B0,2B1\n3F0,3F1,3B0,3B1\n");
  folder.write("ranks.csv", "0F0,0B0\n1F0,1B0\n2F0,2B0\n3F0,3B0\n4F0,4B0\n");
  folder.write("unsharded.csv", "0F0,0B0\n1UNSHARD,1F0,1B0,1RESHARD\n2F0,2B0\n3F0,3B0\n");
  folder.write("unknown_key.ini", "layers = 2\nlearning-rate = 1\n");
  folder.write("bad_value.ini", "threads = two\n");
  write_mnist(folder, "no_images", "train-images-idx3-ubyte", "");
  write_mnist(folder, "empty_images", "train-images-idx3-ubyte", "");
  write_mnist(folder, "cut_gzip", "train-images-idx3-ubyte", images.substr(0, images.size() / 2));
  write_mnist(folder, "text_images", "train-images-idx3-ubyte", "these are not images, whatever the name says");
  write_mnist(folder, "cut_labels", "t10k-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\x07\xd0", 8) + "12345");
}

// Runs the program on 4 ranks with `bad`, beside a report that must survive.
void expect_refused(const std::string& program, const std::string& usual, const BadInput& bad) {
  SCOPED_TRACE(bad.name);
  const TemporaryFolder folder;
  write_bad_files(folder);
  const std::string report = folder.write("report.json", "precious");
  const auto files = folder.files();

  const std::string options = fmt::format(fmt::runtime(bad.options), fmt::arg("folder", folder.path("")));
  Command command(4, fmt::format("{} {} --report {} {}", program, usual, report, options));
  const int exit_code = command.finish();
  EXPECT_EQ(exit_code, 1) << command.output();
  const auto sentences = lines_of(command.output(), "ninefold:");
  ASSERT_EQ(sentences.size(), 1u) << command.output();
  EXPECT_NE(sentences[0].find(bad.sentence), std::string::npos) << sentences[0];
  EXPECT_EQ(sentences[0].find(".cpp:"), std::string::npos) << "users are told nothing of the code: " << sentences[0];
  EXPECT_EQ(command.output().find("terminate called"), std::string::npos) << command.output();
  EXPECT_TRUE(command.left_nothing());
  EXPECT_EQ(folder.read("report.json"), "precious");
  EXPECT_EQ(folder.files(), files);
}

// Each of `inputs`, several at a time.
void expect_refused(const std::string& program, std::string_view usual, const std::vector<BadInput>& inputs) {
  for_each_at_once(inputs, [&](const BadInput& bad) { expect_refused(program, std::string(usual), bad); });
}

std::vector<BadInput> operator+(std::vector<BadInput> some, const std::vector<BadInput>& more) {
  some.insert(some.end(), more.begin(), more.end());
  return some;
}

// What both programs may be told wrongly.
std::vector<BadInput> bad_for_both() {
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
      {"collectives", "--collectives mine", "--collectives must be one of ours, ordered, mpi, not 'mine'"},
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
      {"shape", "--init-from {folder}other_shape",
       "model.layers.0.mlp.gate_proj.weight has the shape [128, 64], but this model needs [120, 64]"},
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

std::vector<BadInput> bad_for_the_bench() {
  return {
      {"sizes", "-b 8 -e 4", "-b (8) must not be above -e (4)"},
      {"no_size", "-b 8x", "-b needs a number of bytes like 8, 4K, 1M or 2G, not '8x'"},
      {"algorithm", "--algorithm rings", "all_reduce has no algorithm 'rings': there are ours, mpi, ring, "},
      {"collective", "--collective all_redcue", "all_redcue"},
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
      {"cp", "--cp 2", "--cp 2 is not available: this trainer splits the work over --pp, --dp-replicate, --dp-shard"},
      {"no_pipeline", "--tp 2 --schedule zb-v", "--schedule is for a pipeline, but --pp is 1; add --pp 2"},
      {"no_shards", "--dp-replicate 4 --stage 1", "--stage 1 divides states over --dp-shard, but that is 1"},
      {"mesh_order", "--mesh-order tp,pp", "--mesh-order tp,pp must name each of pp, dp_replicate, dp_shard, cp and"},
      {"f8", "--pp 2 --matmul-dtype f8", "--matmul-dtype f8 is not for a pipeline (pp 2); leave it out"},
      {"units", "--pp 2 --wrap size:20000", "--wrap and --prefetch are not for a pipeline"},
      {"tied", "--tp 2 --tied-embeddings", "--tied-embeddings is not for tensor parallelism (tp 2)"},
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

constexpr std::string_view mnist = "--model mnist_cnn --batch 12 --steps 4 --no-measure-peak";

TEST(BadInput, OfTheCombinedTrainer) {
  const std::string replicas = fmt::format("{} --dp-replicate 4 --dp-shard 1", tiny_llama);
  expect_refused(NINEFOLD_09_TRAIN, replicas, bad_for_both() + bad_for_llama());
  expect_refused(NINEFOLD_09_TRAIN, std::string(tiny_llama), bad_for_combinations());
}

TEST(BadInput, OfDataParallelLlama) {
  expect_refused(NINEFOLD_02_TRAIN, tiny_llama, bad_for_llama() + bad_for_buckets());
}

TEST(BadInput, OfCheckpoints) {
  for (const BadInput& bad : bad_for_checkpoints()) {
    expect_refused(NINEFOLD_03_TRAIN, "--length 16 --batch 12 --steps 4 --no-measure-peak", bad);
  }
}

TEST(BadInput, OfDataParallelMnist) {
  const std::vector<BadInput> model = {
      {"model", "--model mnist_cmm", "--model must be one of llama, mnist_cnn, not 'mnist_cmm'"}};
  expect_refused(NINEFOLD_02_TRAIN, mnist, bad_for_both() + bad_for_mnist() + model);
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

TEST(BadInput, OfTheBench) { expect_refused(NINEFOLD_01_BENCH, "", bad_for_the_bench()); }
TEST(BadInput, OfExperts) { expect_refused(NINEFOLD_08_TRAIN, tiny_llama, bad_for_experts()); }

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
