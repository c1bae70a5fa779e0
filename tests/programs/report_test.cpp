// What the programs leave behind when all goes well: the report and the timeline, and the options that shape a run.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/black_images.h"
#include "tests/support/command.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

using Json = nlohmann::json;

const std::string mnist = "--model mnist_cnn --batch 12 --steps 4 --no-measure-peak";

// Runs a program on some ranks; it must succeed. Returns what it printed.
std::string run(int ranks, const std::string& line) {
  Command command(ranks, line);
  EXPECT_EQ(command.finish(), 0) << line << "\n" << command.output();
  EXPECT_TRUE(command.left_nothing()) << line;
  return command.output();
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::set<std::string> keys_of(const Json& json) {
  std::set<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.insert(key);
  return keys;
}

using Keys = std::set<std::string>;

void expect_report_keys(const Json& report, const std::string& unit) {
  EXPECT_EQ(keys_of(report), (Keys{"program", "options", "mesh", "device", "ranks", "steps", "summary", "check",
                                   "evaluations", "memory", "traffic", "exposed_communication"}));
  EXPECT_EQ(keys_of(report["exposed_communication"]), Keys{"wall_ms_per_step"});
  // Nothing is waited for where every message has come by the time that it is asked for.
  EXPECT_GE(report["exposed_communication"]["wall_ms_per_step"], 0);
  for (const Json& step : report["steps"]) {
    EXPECT_EQ(keys_of(step), (Keys{"step", "loss", "grad_norm", "ms", unit + "_per_second"}));
  }
  EXPECT_EQ(keys_of(report["summary"]),
            (Keys{unit + "_per_second", "ms_per_step", "model_flops_per_second", "matmul_peak_flops_per_second",
                  "matmul_peak_fraction", "executed_flops_per_step", "predicted_flops_per_step"}));
  EXPECT_GT(report["summary"]["executed_flops_per_step"], 0);
  EXPECT_EQ(report["summary"]["executed_flops_per_step"], report["summary"]["predicted_flops_per_step"]);
  EXPECT_EQ(keys_of(report["check"]), (Keys{"passed", "steps", "numerics", "loss_max_abs", "gradient_max_rel",
                                            "parameter_max_rel", "worst_parameter"}));
  EXPECT_EQ(keys_of(report["memory"]), (Keys{"parameters", "gradients", "optimizer", "activations", "gathered",
                                             "communication", "workspace", "host", "data", "oracle"}));
  for (const Json& kind : report["memory"]) EXPECT_EQ(keys_of(kind), (Keys{"predicted", "measured_peak"}));
  const Json& entry = report.at("traffic").at("dp_replicate").at("all_reduce");
  EXPECT_EQ(keys_of(entry), (Keys{"calls", "predicted", "measured", "messages", "predicted_calls", "by_formula"}));
  EXPECT_EQ(entry["calls"], entry["predicted_calls"]);
  EXPECT_EQ(entry["predicted"], entry["measured"]);
  EXPECT_EQ(keys_of(entry["messages"]), (Keys{"predicted", "measured"}));
  EXPECT_GT(entry["messages"]["measured"], 0);
  EXPECT_EQ(entry["messages"]["predicted"], entry["messages"]["measured"]);
}

void expect_report(const std::string& program, const std::string& usual, const std::string& unit) {
  const TemporaryFolder folder;
  run(4, fmt::format("{} {} --eval-every 2 --eval-batches 2 --report {}", program, usual, folder.path("report.json")));
  const Json report = Json::parse(folder.read("report.json"));
  expect_report_keys(report, unit);
  EXPECT_EQ(report["ranks"], 4);
  for (const auto& [dimension, size] : report["mesh"].items()) {
    EXPECT_EQ(size, dimension == "dp_replicate" ? 4 : 1) << dimension;
  }
  EXPECT_EQ(report["mesh"].count("dp_replicate"), 1u);
  EXPECT_EQ(report["steps"].size(), 4u);
  EXPECT_EQ(report["check"]["passed"], true);
  EXPECT_EQ(report["check"]["steps"], 4);
  EXPECT_EQ(report["check"]["numerics"], "bounded") << "a ring of 4 ranks adds in another order";
  EXPECT_EQ(report["options"]["batch"], 12);
  EXPECT_EQ(report["options"]["micro-batch"], 3) << "as the run used it";
  ASSERT_EQ(report["evaluations"].size(), 2u);
  EXPECT_EQ(report["evaluations"][1]["step"], 4);
  EXPECT_GT(report["evaluations"][1]["loss"], 0);
  const double rows =
      report["steps"][0]["ms"].get<double>() / 1e3 * report["steps"][0][unit + "_per_second"].get<double>();
  EXPECT_NEAR(rows, unit == "images" ? 12 : 12 * 16, 1e-6) << "a step's rows";
}

TEST(Report, OfTheCombinedTrainer) {
  expect_report(NINEFOLD_09_TRAIN, fmt::format("{} --dp-replicate 4", tiny_llama), "tokens");
}
TEST(Report, OfDataParallelLlama) { expect_report(NINEFOLD_02_TRAIN, std::string(tiny_llama), "tokens"); }
TEST(Report, OfDataParallelMnist) { expect_report(NINEFOLD_02_TRAIN, mnist, "images"); }

// In f16 every step has its loss scale; values gathered in 8 bits have an error.
TEST(Report, OfNarrowTypes) {
  const TemporaryFolder folder;
  const std::string output =
      run(2, fmt::format("{} {} --dtype f16 --init-scale 67108864 --offload pageable --gather-dtype f8 --report {}",
                         NINEFOLD_03_TRAIN, tiny_llama, folder.path("report.json")));
  EXPECT_TRUE(contains(output, "loss scale\n")) << output;
  EXPECT_TRUE(contains(output, "67108864  overflow: skipped\n")) << output;
  EXPECT_TRUE(contains(output, "of their norm, rounded on their way\n")) << output;
  const Json report = Json::parse(folder.read("report.json"));
  EXPECT_EQ(report["steps"][0]["loss_scale"], 67108864);
  EXPECT_EQ(report["steps"][0]["skipped"], true);
  EXPECT_EQ(report["steps"][1]["loss_scale"], 33554432);
  EXPECT_GT(report["gather_error"], 0.02);
  EXPECT_LT(report["gather_error"], 0.04);
  EXPECT_EQ(report["memory"]["host"]["predicted"], report["memory"]["host"]["measured_peak"]);
  EXPECT_GT(report["memory"]["host"]["predicted"], 0);
}

// Sums of two have no order; of more, `ordered` keeps that of the serial run.
TEST(Report, SaysBitIdenticalWhereTheSumsAreThoseOfTheSerialRun) {
  const TemporaryFolder folder;
  for (const auto& [ranks, collectives] : {std::pair{1, "ours"}, std::pair{2, "ours"}, std::pair{4, "ordered"}}) {
    const std::string output = run(ranks, fmt::format("{} {} --collectives {} --report {}", NINEFOLD_02_TRAIN,
                                                      tiny_llama, collectives, folder.path("report.json")));
    EXPECT_TRUE(contains(output, "check passed: 4 steps against the serial model (f32, bit-identical)")) << output;
    const Json check = Json::parse(folder.read("report.json"))["check"];
    EXPECT_EQ(check["numerics"], "bit-identical");
    EXPECT_EQ(check["gradient_max_rel"], 0);
    EXPECT_EQ(check["loss_max_abs"], 0);
  }
}

std::vector<double> losses(const std::string& report) {
  std::vector<double> losses;
  const Json json = Json::parse(report);
  for (const Json& step : json["steps"]) losses.push_back(step["loss"]);
  return losses;
}

// Also with every option that watches a run without changing it.
void expect_the_same_losses_again(const std::string& program, const std::string& usual) {
  const TemporaryFolder folder;
  std::vector<std::vector<double>> all;
  for (const std::string watching : {"", "", "--debug-comm --synchronous-sends --verbose --no-check --log-every 2",
                                     "--dp-replicate auto --eval-every 1 --eval-batches 1 --timeout 50"}) {
    const std::string report = folder.path("report.json");
    const std::string output = run(4, fmt::format("{} {} {} --report {}", program, usual, watching, report));
    all.push_back(losses(folder.read("report.json")));
    EXPECT_EQ(all.back().size(), 4u);
    EXPECT_EQ(all.back(), all.front()) << watching;
    EXPECT_TRUE(contains(output, "mesh dp_replicate(4)")) << output;
    EXPECT_EQ(contains(output, "check passed"), !contains(watching, "--no-check")) << output;
    EXPECT_EQ(contains(output, "bytes here"), contains(watching, "--verbose")) << output;
    EXPECT_EQ(contains(output, "after 4 steps: evaluation loss"), contains(watching, "--eval-every")) << output;
  }
}

TEST(Losses, OfTheCombinedTrainerAreTheSameBitsAgain) {
  expect_the_same_losses_again(NINEFOLD_09_TRAIN, fmt::format("{} --dp-replicate 4", tiny_llama));
}
TEST(Losses, OfDataParallelMnistAreTheSameBitsAgain) { expect_the_same_losses_again(NINEFOLD_02_TRAIN, mnist); }

// On a cluster: wall and virtual time, apart and named.
TEST(Report, SaysWhichTimeIsVirtual) {
  const TemporaryFolder folder;
  const std::string output = run(4, fmt::format("{} {} --variant flat --eval-every 2 --report {} "
                                                "--cluster \"dp_replicate=1GB/s,20us compute=1GF/s\"",
                                                NINEFOLD_02_TRAIN, tiny_llama, folder.path("report.json")));
  for (const std::string part :
       {"virtual time: that of the machines of --cluster \"dp_replicate=1GB/s,20us compute=1GF/s\"",
        "wall ms virtual ms", "ms of wall time per step (median)", "exposed communication: ", "\nvirtual time: "}) {
    EXPECT_TRUE(contains(output, part)) << part << "\n" << output;
  }
  const Json report = Json::parse(folder.read("report.json"));
  const Json& exposed = report["exposed_communication"];
  EXPECT_EQ(keys_of(exposed), (Keys{"wall_ms_per_step", "virtual_ms_per_step", "by_dimension"}));
  EXPECT_GT(exposed["virtual_ms_per_step"], 0);
  EXPECT_EQ(exposed["by_dimension"], Json({{"dp_replicate", exposed["virtual_ms_per_step"]}}));
  const double median = report["summary"]["virtual_ms_per_step"];
  EXPECT_GT(median, exposed["virtual_ms_per_step"]);
  for (const Json& step : report["steps"]) {
    EXPECT_NEAR(step["virtual_ms"], median, 1e-6) << "neither the check nor an evaluation takes virtual time";
  }
}

// Ranks of the spans of each category, and the spans' names, in the processes whose name ends in `kind`.
void expect_rows(const Json& trace, const std::string& kind) {
  std::map<int, int> rank_of;  // by process
  std::map<std::string, std::set<int>> ranks_with;
  std::set<std::string> names;
  for (const Json& event : trace["traceEvents"]) {
    if (event["name"] == "process_name") {
      const std::string name = event["args"]["name"];
      const size_t end = name.find_first_not_of("0123456789", 5);
      if (name.substr(std::min(end, name.size())) == kind) rank_of[event["pid"]] = std::stoi(name.substr(5));
    }
    if (event["ph"] != "X" || !rank_of.contains(event["pid"])) continue;
    ranks_with[event["cat"]].insert(rank_of[event["pid"]]);
    names.insert(event["name"].get<std::string>());
  }
  for (const std::string category : {"step", "compute", "communication", "wait"}) {
    EXPECT_EQ(ranks_with[category], (std::set<int>{0, 1, 2})) << category << kind;
  }
  for (const std::string name : {"layers.1 backward", "output forward", "all_reduce dp_replicate bucket 0",
                                 "all_reduce dp_replicate bucket 1", "step 3: update"}) {
    EXPECT_TRUE(names.contains(name)) << name << kind;
  }
}

TEST(Trace, ShowsLayersAndBucketsInWallAndInVirtualTime) {
  const TemporaryFolder folder;
  run(3, fmt::format("{} {} --bucket-mb 0.05 --trace {} --cluster \"dp_replicate=1MB/s,20us compute=1GF/s\"",
                     NINEFOLD_02_TRAIN, tiny_llama, folder.path("trace.json")));
  const Json trace = Json::parse(folder.read("trace.json"));
  expect_rows(trace, "");
  expect_rows(trace, ", virtual time");
}

// Activations grow from layer to layer in the forward and shrink in the backward.
TEST(Trace, CountsMemoryAfterEveryLayer) {
  const TemporaryFolder folder;
  run(2, fmt::format("{} {} --layers 4 --steps 1 --no-check --trace {}", NINEFOLD_02_TRAIN, tiny_llama,
                     folder.path("trace.json")));
  const Json trace = Json::parse(folder.read("trace.json"));
  std::vector<double> activations;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "C" || event["pid"] != 1) continue;
    EXPECT_EQ(event["name"], "memory");
    EXPECT_GT(event["args"]["parameters"], 0);
    activations.push_back(event["args"]["activations"]);
  }
  const auto top = std::max_element(activations.begin(), activations.end());
  const std::set<double> levels(activations.begin(), activations.end());
  ASSERT_GE(levels.size(), 5u) << "one for each layer at least";
  EXPECT_TRUE(std::is_sorted(activations.begin(), top));
  EXPECT_EQ(activations.back(), 0);
}

TEST(Trace, HasARowForEachRankAndItsComputeCommunicationAndSteps) {
  const TemporaryFolder folder;
  for (const std::string& line :
       {fmt::format("{} {}", NINEFOLD_09_TRAIN, tiny_llama), fmt::format("{} {}", NINEFOLD_02_TRAIN, mnist)}) {
    run(3, fmt::format("{} --trace {}", line, folder.path("trace.json")));
    std::vector<int> rows;
    std::map<std::string, std::set<int>> ranks_with;  // by category
    int steps = 0;
    const Json trace = Json::parse(folder.read("trace.json"));
    for (const Json& event : trace["traceEvents"]) {
      if (event["name"] == "process_name") rows.push_back(event["pid"].get<int>());
      if (event["ph"] != "X") continue;
      ranks_with[event["cat"]].insert(event["pid"].get<int>());
      EXPECT_GE(event["dur"], 0);
      steps += event["cat"] == "step";
    }
    EXPECT_EQ(rows, (std::vector<int>{0, 1, 2}));
    for (const std::string category : {"compute", "communication", "step"}) {
      EXPECT_EQ(ranks_with[category], (std::set<int>{0, 1, 2})) << category;
    }
    EXPECT_EQ(steps, 3 * 4 * 2) << "gradients and update";
  }
}

TEST(Options, OfAFileAreOverriddenByThoseGiven) {
  const TemporaryFolder folder;
  const std::string config = folder.write("tiny.ini",
                                          "dim = 32\nlayers = 2  # two\nheads = 4\nkv-heads = 2\nffn = 48\n"
                                          "length = 16\nbatch = 12\nsteps = 9\nmeasure-peak = false\n");
  run(2, fmt::format("{} --config {} --steps 2 --layers 1 --report {}", NINEFOLD_09_TRAIN, config,
                     folder.path("report.json")));
  const Json report = Json::parse(folder.read("report.json"));
  EXPECT_EQ(report["steps"].size(), 2u);
  EXPECT_EQ(report["options"]["layers"], 1);
  EXPECT_EQ(report["options"]["ffn"], 48);
}

TEST(Options, HelpIsPrintedOnceAndSaysUnitsAndDefaults) {
  for (const char* program : {NINEFOLD_02_TRAIN, NINEFOLD_09_TRAIN}) {
    const std::string help = run(4, std::string(program) + " --help");
    EXPECT_EQ(lines_of(help, "Optimizer:").size(), 1u) << help;
    EXPECT_TRUE(contains(help, "[8 samples]")) << help;
    EXPECT_TRUE(contains(help, "--dp-replicate N")) << help;
  }
}

TEST(Epochs, AreFollowedByAnEvaluationOnAllImages) {
  const TemporaryFolder folder;
  write_black_images(folder, "train", 50);
  write_black_images(folder, "t10k", 37);
  const std::string output =
      run(2, fmt::format("{} --model mnist_cnn --data {} --batch 20 --epochs 2 --no-measure-peak", NINEFOLD_02_TRAIN,
                         folder.path("")));
  EXPECT_TRUE(contains(output, "after 2 steps: evaluation loss")) << output;
  EXPECT_TRUE(contains(output, "after 4 steps: evaluation loss")) << output;
  EXPECT_TRUE(contains(output, "of 37 images")) << output;
}

TEST(Epochs, OfALlamaPassOverTheWholeText) {
  const TemporaryFolder folder;
  const std::string text = folder.write("text.txt", std::string(1000, 'a'));  // 950 tokens to train on: 59 windows
  const std::string output = run(1, fmt::format("{} --dim 32 --layers 1 --heads 4 --kv-heads 2 --ffn 48 --length 16 "
                                                "--batch 10 --no-measure-peak --data {} --epochs 2",
                                                NINEFOLD_02_TRAIN, text));
  EXPECT_TRUE(contains(output, "after 10 steps: evaluation loss")) << output;
  EXPECT_FALSE(contains(output, "after 15 steps")) << output;
}

TEST(Meta, A70BLlamaIsBuiltOnPaper) {
  const std::string output = run(1, fmt::format("{} --config {}/../configs/llama3_70b.ini --device meta --steps 0",
                                                NINEFOLD_09_TRAIN, NINEFOLD_DATA));
  EXPECT_TRUE(contains(output, "70.6 B parameters")) << output;
  for (const std::string kind : {"parameters", "gradients", "optimizer"}) {
    ASSERT_EQ(lines_of(output, kind).size(), 1u) << output;
    EXPECT_TRUE(contains(lines_of(output, kind)[0], kind == "optimizer" ? "564 GB" : "282 GB")) << output;
  }
}

}  // namespace
}  // namespace ninefold
