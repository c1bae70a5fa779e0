// Checkpoints as a user meets them: runs that go on, on the same ranks or others, after SIGTERM, after being killed;
// and the folders they leave.
#include <sys/file.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "common/base/open_file.h"
#include "common/tensor/safetensors.h"
#include "tests/support/command.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

const std::string hf_llama = NINEFOLD_TEST_DATA "/hf_llama";
constexpr std::string_view small =
    "--dim 32 --layers 4 --heads 4 --kv-heads 2 --ffn 48 --length 16 --batch 12 --no-measure-peak "
    "--data " NINEFOLD_TEST_DATA "/genesis.txt";
// Of other sizes than a folder says.
constexpr std::string_view short_run =
    "--length 16 --batch 12 --no-measure-peak --data " NINEFOLD_TEST_DATA "/genesis.txt";

struct Program {
  int ranks;
  std::string program, options = "";
};

// Runs to the end, which must be good: the check passes, if there is one, and the books balance.
std::string output_of(const Program& run, const std::string& options) {
  Command command(run.ranks, fmt::format("{} {} {}", run.program, run.options, options));
  EXPECT_EQ(command.finish(), 0) << run.program << " " << run.options << "\n" << command.output();
  return command.output();
}

void expect_same_file(const TemporaryFolder& folder, const std::string& a, const std::string& b) {
  const std::string content = folder.read(a);
  EXPECT_FALSE(content.empty()) << a;
  EXPECT_TRUE(content == folder.read(b)) << a << " and " << b;
}

void expect_same_checkpoint(const TemporaryFolder& folder, const std::string& a, const std::string& b) {
  for (const char* file : {"config.json", "model.safetensors", "optimizer.safetensors"}) {
    expect_same_file(folder, a + "/" + file, b + "/" + file);
  }
}

void expect_whole(const std::string& checkpoint) {
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) SafetensorsFile(checkpoint + "/" + file);
  for (const char* file : {"config.json", "trainer.json"}) {
    std::ifstream stream(checkpoint + "/" + file);
    EXPECT_TRUE(nlohmann::json::accept(stream)) << checkpoint << "/" << file;
  }
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Checkpoint, GoesOnWithTheSameBitsOnTheSameMesh) {
  const std::vector<Program> runs = {
      {2, NINEFOLD_02_TRAIN, "--dtype f16"},
      {4, NINEFOLD_03_TRAIN, "--stage 3 --dtype bf16 --async-checkpoint --dp-replicate 2"},
      {4, NINEFOLD_03_TRAIN, "--stage 1"},
      {4, NINEFOLD_05_TRAIN, "--tp 4 --vocab 250 --async-checkpoint"},  // copies of heads, padding
      {2, NINEFOLD_08_TRAIN, "--experts 4 --balance bias --router sigmoid --shared-experts 1"},
      {4, NINEFOLD_06_TRAIN, "--pp 2 --dp-replicate 2 --schedule dualpipe --tied-embeddings"},
  };
  for_each_at_once(runs, [](const Program& run) {
    const TemporaryFolder folder;
    const std::string options =
        fmt::format("{} --no-check --steps 6 --every 3 --checkpoint {}", small, folder.path("run"));
    output_of(run, options);
    EXPECT_EQ(names_in(folder.path("run")), (std::vector<std::string>{".lock", "step_3", "step_6"}));
    std::filesystem::rename(folder.path("run/step_6"), folder.path("whole"));
    const std::string output = output_of(run, options + " --resume");
    EXPECT_NE(output.find("going on after step 3 from"), std::string::npos) << output;
    expect_same_checkpoint(folder, "run/step_6", "whole");
  });
}

std::vector<double> losses_in(const TemporaryFolder& folder, const std::string& report) {
  std::vector<double> losses;
  const auto json = nlohmann::json::parse(folder.read(report));
  for (const auto& step : json["steps"]) losses.push_back(step["loss"]);
  return losses;
}

// A run whose third checkpoint other meshes go on from: the next five losses are those of the run itself.
void expect_the_same_losses(const Program& written, const std::vector<Program>& runs) {
  const TemporaryFolder first;
  const auto options_in = [](const TemporaryFolder& folder) {
    return fmt::format("{} --no-check --steps 8 --report {} --checkpoint {}", small, folder.path("report.json"),
                       folder.path("run"));
  };
  output_of(written, options_in(first) + " --every 3");
  const std::vector<double> whole = losses_in(first, "report.json");
  for_each_at_once(runs, [&](const Program& run) {
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder.path("run"));
    std::filesystem::copy(first.path("run/step_3"), folder.path("run/step_3"));
    output_of(run, options_in(folder) + " --resume");
    const std::vector<double> losses = losses_in(folder, "report.json");
    ASSERT_EQ(losses.size(), 5u);
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], whole[i + 3], 1e-6 * whole[i + 3]) << run.options;
  });
}

TEST(Checkpoint, GoesOnOnAnotherMesh) {
  expect_the_same_losses({4, NINEFOLD_05_TRAIN, "--tp 2 --dp-shard 2"},
                         {{1, NINEFOLD_02_TRAIN},
                          {4, NINEFOLD_03_TRAIN, "--stage 3"},
                          {4, NINEFOLD_05_TRAIN, "--tp 4"},
                          {4, NINEFOLD_06_TRAIN, "--pp 4"},
                          {4, NINEFOLD_07_TRAIN, "--cp 2 --dp-shard 2"},
                          {4, NINEFOLD_09_TRAIN, "--pp 2 --dp-shard 2 --stage 1"}});
}

TEST(Checkpoint, OfAMixtureOfExpertsGoesOnOnAnotherMesh) {
  const std::string experts = "--experts 4 --router sigmoid --balance bias --bias-update-rate 0.1 --shared-experts 1 ";
  expect_the_same_losses({4, NINEFOLD_09_TRAIN, experts + "--pp 2 --dp-shard 2 --ep 2"},
                         {{1, NINEFOLD_08_TRAIN, experts},
                          {4, NINEFOLD_08_TRAIN, experts + "--ep 4"},
                          {4, NINEFOLD_09_TRAIN, experts + "--pp 4"},
                          {4, NINEFOLD_09_TRAIN, experts + "--dp-shard 2 --tp 2 --ep 2"},
                          {4, NINEFOLD_09_TRAIN, experts + "--dp-shard 2 --cp 2 --ep 2"}});
}

TEST(Checkpoint, KeepsTheNewestAndHasNothingLeftToDo) {
  const TemporaryFolder folder;
  const std::string options = fmt::format("{} --steps 5 --every 1 --keep 2 --checkpoint {}", small, folder.path("run"));
  std::filesystem::create_directories(folder.path("run/step_9.tmp"));  // of a run that was killed
  std::filesystem::create_directories(folder.path("run/step_007"));    // of somebody else
  output_of({2, NINEFOLD_02_TRAIN}, options);
  EXPECT_EQ(names_in(folder.path("run")), (std::vector<std::string>{".lock", "step_007", "step_4", "step_5"}));
  const std::string output = output_of({2, NINEFOLD_02_TRAIN}, options + " --resume --measure-peak");
  EXPECT_NE(output.find("all 5 steps are made"), std::string::npos) << output;
  EXPECT_EQ(output.find("of the matmul peak"), std::string::npos) << output;
  const std::string other =
      output_of({2, NINEFOLD_02_TRAIN}, fmt::format("{} --steps 1 --init-from {}", short_run, folder.path("run")));
  EXPECT_NE(other.find("beginning with the parameters of " + folder.path("run/step_5\n")), std::string::npos) << other;
}

// Two batches of 24 samples are four of 12.
TEST(Checkpoint, GoesOnInTheDataWhereTheBatchIsAnotherOne) {
  const TemporaryFolder folder;
  const std::string options = fmt::format("{} --checkpoint {}", small, folder.path("run"));
  output_of({2, NINEFOLD_02_TRAIN}, options + " --steps 4");
  output_of({2, NINEFOLD_02_TRAIN}, options + " --steps 7 --batch 24 --resume");
  const auto json = nlohmann::json::parse(folder.read("run/step_7/trainer.json"));
  EXPECT_EQ(json["data"]["batches"], 5);
  EXPECT_EQ(json["updates"], 7);
}

TEST(Checkpoint, IsOneOfTransformers) {
  const TemporaryFolder folder;
  const auto write = [&](const std::string& source, const std::string& options) {
    output_of(
        {2, NINEFOLD_03_TRAIN, "--lr 0 --weight-decay 0"},
        fmt::format("{} --steps 1 --init-from {} --checkpoint {} {}", short_run, source, folder.path("run"), options));
  };
  write(hf_llama, "");
  std::ifstream original(hf_llama + "/model.safetensors", std::ios::binary);
  EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(original), {}) == folder.read("run/step_1/model.safetensors"));
  const auto config = nlohmann::json::parse(folder.read("run/step_1/config.json"));
  std::ifstream stream(hf_llama + "/config.json");
  const auto expected = nlohmann::json::parse(stream);
  for (const auto& [key, value] : expected.items()) {
    if (key == "transformers_version" || key == "max_position_embeddings") continue;
    EXPECT_EQ(config[key], value) << key;
  }

  std::filesystem::remove_all(folder.path("run"));
  const std::string sharded = NINEFOLD_TEST_DATA "/hf_llama_bf16_sharded_tied";
  write(sharded, "--dtype bf16");
  const SafetensorsFile written(folder.path("run/step_1/model.safetensors"));
  size_t tensors = 0;
  for (const char* part : {"/model-00001-of-00002.safetensors", "/model-00002-of-00002.safetensors"}) {
    const SafetensorsFile file(sharded + part);
    for (const auto& [name, stored] : file.tensors()) {
      EXPECT_TRUE(written.tensors().at(name).bytes == stored.bytes) << name;
      ++tensors;
    }
  }
  EXPECT_EQ(written.tensors().size(), tensors);
}

TEST(Checkpoint, SigtermWritesOneAndEndsWell) {
  const TemporaryFolder folder;
  const std::string options =
      fmt::format("{} {} --no-check --checkpoint {}", NINEFOLD_02_TRAIN, small, folder.path("run"));
  Command command(2, options + " --steps 1000000 --async-checkpoint");
  command.read_until("\n      3 ");
  const std::vector<pid_t> ranks = command.processes("train");
  ASSERT_EQ(ranks.size(), 2u) << command.output();
  ::kill(ranks[1], SIGTERM);
  EXPECT_EQ(command.finish(), 0) << command.output();
  const std::vector<std::string> names = names_in(folder.path("run"));
  ASSERT_EQ(names.size(), 2u);
  EXPECT_TRUE(names[1].starts_with("step_")) << names[1];
  expect_whole(folder.path("run/" + names[1]));
}

// Every other round goes on from where one was killed; there are so many steps that none comes to their end. With
// --gtest_repeat=10: fifty kills.
TEST(Checkpoint, SurvivesBeingKilled) {
  const TemporaryFolder folder;
  const std::string options = fmt::format("{} --no-check --steps 120", small);
  const Program run{2, NINEFOLD_03_TRAIN};
  output_of(run, fmt::format("{} --checkpoint {}", options, folder.path("whole")));
  std::random_device random;
  for (int kill = 0; kill < 5; ++kill) {
    if (kill % 2 == 0) std::filesystem::remove_all(folder.path("run"));
    const std::string async = kill % 3 == 0 ? "" : "--async-checkpoint";
    Command command(run.ranks, fmt::format("{} {} --every 1 --keep 3 --checkpoint {} --resume {}", run.program, options,
                                           folder.path("run"), async));
    command.read_until("\ncheckpoint: ");
    const std::vector<pid_t> ranks = command.processes("train");
    ASSERT_EQ(ranks.size(), 2u) << command.output();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
    ::kill(ranks[random() % 2], SIGKILL);
    EXPECT_NE(command.finish(), 0) << command.output();
    EXPECT_TRUE(command.left_nothing());
    for (const std::string& name : names_in(folder.path("run"))) {
      if (name != ".lock" && !name.ends_with(".tmp")) expect_whole(folder.path("run/" + name));
    }
  }
  ASSERT_FALSE(std::filesystem::exists(folder.path("run/step_120"))) << "no round was killed before its end";
  output_of(run, fmt::format("{} --checkpoint {} --resume", options, folder.path("run")));
  expect_same_checkpoint(folder, "run/step_120", "whole/step_120");
}

std::string refusal(const std::string& line) {
  Command command(2, line);
  EXPECT_NE(command.finish(), 0) << command.output();
  const std::vector<std::string> sentences = lines_of(command.output(), "ninefold: ");
  EXPECT_EQ(sentences.size(), 1u) << command.output();
  return sentences.empty() ? "" : sentences[0];
}

TEST(Checkpoint, TwoRunsDoNotWriteOneFolder) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.path("run"));
  const OpenFile lock(folder.path("run/.lock"), O_RDWR | O_CREAT);
  ASSERT_EQ(::flock(lock.descriptor(), LOCK_EX | LOCK_NB), 0);
  const std::string sentence =
      refusal(fmt::format("{} {} --steps 2 --checkpoint {}", NINEFOLD_02_TRAIN, small, folder.path("run")));
  EXPECT_NE(sentence.find("another run is writing there"), std::string::npos) << sentence;
  EXPECT_EQ(folder.files(), 1);
}

// A file system of 840 kB has room for one checkpoint of 581 kB.
TEST(Checkpoint, AFullDiskLeavesTheOldOnes) {
  const TemporaryFolder folder;
  const std::string script =
      folder.write("run.sh", fmt::format(R"(mount -t tmpfs -o size=840k tmpfs {0} || exit 42
timeout 60 {1} -n 2 {2} {3} --no-check --steps 4 --every 2 --checkpoint {0}/run
code=$?
ls {0}/run; ls {0}/run/step_2
exit $code
)",
                                         folder.path("disk"), NINEFOLD_MPIEXEC, NINEFOLD_02_TRAIN, small));
  std::filesystem::create_directory(folder.path("disk"));
  FILE* const pipe = ::popen(fmt::format("unshare --user --map-root-user --mount sh {} 2>&1", script).c_str(), "r");
  std::string output;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe)) output += buffer;
  const int code = WEXITSTATUS(::pclose(pipe));
  if (code == 42 || output.starts_with("unshare: ")) GTEST_SKIP() << "no file system can be mounted here: " << output;
  EXPECT_EQ(code, 1) << output;
  EXPECT_NE(output.find("/disk/run/step_4.tmp/optimizer.safetensors cannot be written: No space left on device"),
            std::string::npos)
      << output;
  EXPECT_TRUE(output.ends_with("\nstep_2\nconfig.json\nmodel.safetensors\noptimizer.safetensors\ntrainer.json\n"))
      << output;
}

TEST(Generate, ContinuesACheckpointOnOneRankAndOnTwo) {
  const TemporaryFolder folder;
  output_of({2, NINEFOLD_03_TRAIN}, fmt::format("{} --steps 2 --checkpoint {}", small, folder.path("run")));
  const std::string options = fmt::format("--init-from {} --prompt 'And God' --tokens 30", folder.path("run"));
  const auto text = [&](int ranks, const std::string& more) {
    const std::string output = output_of({ranks, NINEFOLD_09_GENERATE, options}, more);
    EXPECT_TRUE(output.starts_with("And God")) << output;
    return output.substr(0, output.rfind("\n\n30 tokens from "));
  };
  EXPECT_EQ(text(1, "--temperature 0"), text(2, "--temperature 0"));
  EXPECT_EQ(text(1, "--seed 7"), text(1, "--seed 7"));
  EXPECT_NE(text(1, "--seed 7"), text(1, "--seed 8"));
  EXPECT_EQ(text(1, "--top-k 1"), text(1, "--temperature 0"));
}

// Of a model that no class of transformers holds; the biases of its routers are part of it.
TEST(Generate, ContinuesAMixtureOfExperts) {
  const TemporaryFolder folder;
  output_of({2, NINEFOLD_08_TRAIN, "--experts 4 --router sigmoid --balance bias --bias-update-rate 0.5"},
            fmt::format("{} --steps 3 --shared-experts 1 --checkpoint {}", small, folder.path("run")));
  const std::string bias = "model.layers.1.block_sparse_moe.gate.e_score_correction_bias";
  const SafetensorsFile model(folder.path("run/step_3/model.safetensors"));
  EXPECT_NE(model.tensors().at(bias).bytes, std::string(4 * sizeof(float), '\0'));
  output_of(
      {2, NINEFOLD_08_TRAIN, "--lr 0 --weight-decay 0 --bias-update-rate 0"},
      fmt::format("{} --steps 1 --init-from {} --checkpoint {}", short_run, folder.path("run"), folder.path("other")));
  expect_same_file(folder, "other/step_1/model.safetensors", "run/step_3/model.safetensors");

  const std::string options = fmt::format("--init-from {} --temperature 0 --tokens 20", folder.path("run"));
  const auto text = [&](int ranks) {
    const std::string output = output_of({ranks, NINEFOLD_09_GENERATE, options}, "");
    return output.substr(0, output.rfind("\n\n20 tokens from "));
  };
  EXPECT_EQ(text(1), text(2));
}

// Its name comes before those of the model's tensors.
TEST(Generate, TakesItsTypeFromTheModel) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path("model"));
  std::filesystem::copy(hf_llama + "/config.json", folder.path("model"));
  std::ifstream file(hf_llama + "/model.safetensors", std::ios::binary);
  const std::string original(std::istreambuf_iterator<char>(file), {});
  uint64_t length = 0;
  std::memcpy(&length, original.data(), sizeof length);
  const std::string tensors = original.substr(sizeof length + length);
  std::string header = original.substr(sizeof length, original.rfind('}', sizeof length + length - 1) - sizeof length);
  header += fmt::format(R"(,"a.position_ids":{{"dtype":"I64","shape":[2],"data_offsets":[{},{}]}}}})", tensors.size(),
                        tensors.size() + 16);
  const auto generate = [&](const std::string& head, const std::string& bytes) {
    length = head.size();
    folder.write("model/model.safetensors",
                 std::string(reinterpret_cast<const char*>(&length), sizeof length) + head + bytes);
    return fmt::format("{} --init-from {} --tokens 5", NINEFOLD_09_GENERATE, folder.path("model"));
  };
  const std::string output = output_of({1, generate(header, tensors + std::string(16, '\0'))}, "");
  EXPECT_NE(output.find("leaves out: a.position_ids"), std::string::npos) << output;
  EXPECT_NE(refusal(generate("{}", "")).find("has no tensor model.embed_tokens.weight"), std::string::npos);
}

TEST(Generate, GivesTheNumbersOfOtherVocabularies) {
  const TemporaryFolder folder;
  std::vector<uint16_t> tokens(2000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint16_t>(i % 300);
  const std::string data =
      folder.write("tokens.bin", std::string_view(reinterpret_cast<const char*>(tokens.data()), 2 * tokens.size()));
  output_of({2, NINEFOLD_03_TRAIN},
            fmt::format("{} --steps 1 --vocab 300 --data {} --checkpoint {}", small, data, folder.path("run")));
  const std::string options = fmt::format("--init-from {} --tokens 5 --prompt ", folder.path("run"));
  const std::string output = output_of({1, NINEFOLD_09_GENERATE, options}, "'7 299'");
  std::istringstream words(output);
  std::vector<int> numbers;
  for (int number; words >> number && numbers.size() < 7;) numbers.push_back(number);
  ASSERT_EQ(numbers.size(), 7u) << output;
  EXPECT_EQ(numbers[1], 299);
  for (const int number : numbers) EXPECT_TRUE(number >= 0 && number < 300) << output;
  EXPECT_NE(refusal(fmt::format("{} {} '7 300'", NINEFOLD_09_GENERATE, options)).find("the token 300, but the"),
            std::string::npos);
  EXPECT_NE(refusal(fmt::format("{} {} 'In the'", NINEFOLD_09_GENERATE, options)).find("must be token numbers"),
            std::string::npos);
}

}  // namespace
}  // namespace ninefold
