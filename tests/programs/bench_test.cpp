// What 01/bench reports of machines that are described, and how it describes this one.
#include <nlohmann/json.hpp>

#include "tests/support/command.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

using Json = nlohmann::json;

std::string output_of(int ranks, const std::string& options, int exit_code = 0) {
  Command command(ranks, NINEFOLD_01_BENCH + std::string(" ") + options);
  EXPECT_EQ(command.finish(), exit_code) << command.output();
  return command.output();
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// Powers of two, so that sums of times are exact.
constexpr double alpha = 1.0 / 1024, beta = 1 << 20;
const std::string cluster = "--cluster \"dp_replicate=1048576B/s,0.0009765625s\"";

TEST(Bench, ReportsOnAClusterTheFormulaOfTheRing) {
  const TemporaryFolder folder;
  for (const int ranks : {2, 4, 8}) {
    const std::string output =
        output_of(ranks, fmt::format("{} -b 1K -e 64K --report {}", cluster, folder.path("report.json")));
    EXPECT_TRUE(contains(output, "# times are virtual: those of the machines of --cluster")) << output;
    const Json report = Json::parse(folder.read("report.json"));
    EXPECT_EQ(report["time"], "virtual");
    int rings = 0;
    for (const Json& result : report["results"]) {
      EXPECT_NE(result["algorithm"], "mpi");
      EXPECT_EQ(result["wrong"], 0);
      if (result["algorithm"] != "ring") continue;
      ++rings;
      const double n = ranks, bytes = result["bytes"];
      EXPECT_EQ(result["time_us"], 2 * (n - 1) * (alpha + bytes / (n * beta)) * 1e6);
      EXPECT_EQ(result["in_place"]["time_us"], result["time_us"]);
    }
    EXPECT_EQ(rings, 4);
  }
}

TEST(Bench, ReportsOnAClusterTheSameAgain) {
  const TemporaryFolder folder;
  std::vector<std::string> reports;
  for (int run = 0; run < 2; ++run) {
    output_of(3, fmt::format("--cluster \"dp_replicate=1GB/s,20us\" --collective all -b 4K -e 64K --report {}",
                             folder.path("report.json")));
    reports.push_back(folder.read("report.json"));
  }
  EXPECT_EQ(reports[0], reports[1]);
}

// Inside a group of `tp` the link is faster: an algorithm that knows of the two beats one that does not.
TEST(Bench, KnowsWhereTheRanksAre) {
  const TemporaryFolder folder;
  output_of(4, fmt::format("--cluster \"dp_replicate=1MB/s,1ms tp=1GB/s,1us\" --tp 2 -b 64K -e 64K --report {}",
                           folder.path("report.json")));
  const Json report = Json::parse(folder.read("report.json"));
  std::map<std::string, double> time;
  for (const Json& result : report["results"]) time[result["algorithm"]] = result["time_us"];
  EXPECT_LT(time.at("hierarchical"), time.at("ring") / 2);
}

TEST(Bench, FitsALinkThatClusterReads) {
  const TemporaryFolder folder;
  const std::string output =
      output_of(4, fmt::format("--fit --tp 2 -b 4 -e 1M --rounds 5 --report {}", folder.path("report.json")));
  const Json report = Json::parse(folder.read("report.json"));
  const std::string line = report["cluster"];
  EXPECT_TRUE(contains(output, fmt::format("--cluster \"{}\"\n", line))) << output;
  for (const std::string dimension : {"dp_replicate", "tp"}) {
    const Json& fit = report["fit"][dimension];
    EXPECT_GT(fit["bandwidth_b_s"], 1e6);
    EXPECT_GE(fit["latency_s"], 0);
    EXPECT_EQ(fit["messages"].size(), 10u);
  }
  const std::string again = output_of(4, fmt::format("--cluster \"{}\" --tp 2 -b 4K -e 4K", line));
  EXPECT_TRUE(contains(again, "# times are virtual")) << again;
}

TEST(Bench, RefusesWhatContradictsItself) {
  for (const auto& [options, sentence] : std::vector<std::pair<std::string, std::string>>{
           {cluster + " --fit", "--fit measures the links of this machine, --cluster gives others; leave one out"},
           {cluster + " --algorithm mpi", "all_reduce has no algorithm 'mpi': there are ours, ring"},
           {"--cluster \"tp=1GB/s,1us\"", "--cluster: tp is no dimension of the mesh; there is dp_replicate"},
           {"--fit -b 4 -e 4", "--fit needs two sizes at least"},
           {"--tp 3", "dp_replicate(auto) x tp(3) needs a multiple of 3 ranks, but the job has 2"}}) {
    const std::string output = output_of(2, options, 1);
    EXPECT_TRUE(contains(output, sentence)) << output;
  }
}

}  // namespace
}  // namespace ninefold
