// Trains the same Llama on the same global batch by every technique of the course that fits the ranks, and puts the
// runs side by side: loss, speed, memory and traffic here, and the time on clusters that you do not have.
//
// ./run compare -n 2 -- --html compare.html
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "09_combined_3d/comparison/page.h"
#include "09_combined_3d/comparison/pytorch.h"
#include "09_combined_3d/comparison/write.h"
#include "common/base/check.h"
#include "common/base/report.h"

namespace {

using namespace ninefold;
using namespace ninefold::comparison;

struct ProgramOptions {
  int64_t ranks = Options::automatic;
  std::string only, clusters = "auto", scaling = "none", csv, json, html;
  bool list = false, with_pytorch = false;
  Settings settings;
  Workload work;

  void declare(Options& options) {
    options.group("What is compared");
    options.add("-n,--ranks", ranks, "ranks of each technique; of --scaling, the most; auto: 2, and 32",
                {.minimum = 1, .maximum = 1024, .may_be_auto = true});
    options.add("--only", only, "techniques with one of these words in their name, such as fsdp,tp; all if left out");
    options.add("--list", list, "print the techniques that fit, and the command of each, and run nothing");
    options.add("--clusters", clusters,
                "machines for virtual time: files of configs/clusters, or paths; none; auto: laptop,gpu_node,ethernet");
    options.add_choice("--scaling", scaling, {"none", "strong", "weak"},
                       "instead: 1, 2, 4, … ranks in virtual time, with the same --batch for all ranks (strong), or "
                       "for each (weak)");
    options.add("--with-pytorch", with_pytorch,
                "beside PyTorch's DDP, FSDP2, TP and 1F1B, by the python3 on the PATH or that PYTHON names");
    work.declare(options);
    options.group("Runs and results");
    options.add("--steps", settings.steps, "of each run; the median counts, without the first two", {.minimum = 3});
    options.add("--csv", csv, "write the table to this file");
    options.add("--json", json, "write all that was found to this file");
    options.add("--html", html, "write a page with plots to this file, which needs no network");
  }

  // The defaults that depend on other options, and what is wrong before long work.
  void settle(const Options& given) {
    const bool scales = scaling != "none";
    if (ranks == Options::automatic) ranks = scales ? 32 : 2;
    if (clusters == "auto") clusters = scales ? "infiniband,ethernet" : "laptop,gpu_node,ethernet";
    if (scales && !given.given("--batch")) work.batch = scaling == "strong" ? 32 : 4;
    if (scales && !given.given("--length")) work.length = 128;
    require(!scales || !with_pytorch, "--with-pytorch has no virtual time; leave it out, or --scaling");
    require(!scales || !list, "--list prints the techniques that fit one number of ranks; leave it out, or --scaling");
    require(!scales || clusters != "none", "--scaling needs --clusters: it is in virtual time alone");
    for (const auto& [option, path] : {std::pair{"--csv", csv}, {"--json", json}, {"--html", html}}) {
      if (!path.empty()) require_writable(path, option);
    }
    require(std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr,
            "compare starts mpirun itself, once for each technique: start it without, with -n for the ranks");
  }
};

void print_list(const std::vector<Technique>& techniques, const Workload& work) {
  for (const Technique& technique : techniques) {
    fmt::print("{}\n    {}\n", technique.name, shell_line(command_of(technique, work)));
  }
}

void write_files(const Results& results, const ProgramOptions& options) {
  if (!options.csv.empty()) write_file_atomically(options.csv, csv_text(results));
  if (!options.json.empty()) write_file_atomically(options.json, json_of(results).dump(2) + "\n");
  if (!options.html.empty()) write_file_atomically(options.html, page_of(results));
}

// The figures that the page has besides the rows'.
void add_scaling_of_page(Results& results, const ProgramOptions& options) {
  constexpr int most = 16;
  Workload work = options.work;
  work.batch = std::max<int64_t>(work.batch, most);   // a sample for each rank
  work.length = std::min<int64_t>(work.length, 128);  // as --scaling
  results.scaling = "strong";
  results.points = measure_scaling("strong", most, work, options.only, results.profiles, options.settings);
}

int run(int argc, char** argv) {
  ProgramOptions options;
  Options command_line("09/compare", "Every technique on the same model and global batch, side by side.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) {
    fmt::print("{}", *help);
    return 0;
  }
  options.settle(command_line);
  const auto ranks = static_cast<int>(options.ranks);
  const Workload& work = options.work;

  const std::vector<Profile> profiles = read_profiles(options.clusters);
  if (!options.html.empty()) require_page_parts();
  std::optional<PyTorch> pytorch;
  if (options.with_pytorch) pytorch.emplace();
  Results results{.ranks = ranks,
                  .cores = static_cast<int>(std::thread::hardware_concurrency()),
                  .processor = processor_name(),
                  .work = work,
                  .profiles = profiles,
                  .scaling = options.scaling};
  if (options.scaling != "none") {
    results.points = measure_scaling(options.scaling, ranks, work, options.only, profiles, options.settings);
    require(results.points.size() > profiles.size(), "--only {}: no technique of the scaling figures has such a name",
            options.only);
  } else {
    const TechniqueList list = techniques_on(ranks, work);
    const std::vector<Technique> techniques = select(list.rows, options.only);
    if (options.list) return print_list(techniques, work), 0;
    for (const Technique& technique : techniques) require_program(technique);
    results.left_out = list.left_out;
    results.rows = compare(techniques, work, profiles, options.settings);
    if (pytorch) pytorch->add_rows(results.rows, ranks, work, options.settings.steps);
    if (!options.html.empty() && !profiles.empty()) add_scaling_of_page(results, options);
  }
  fmt::print("{}", table_text(results));
  write_files(results, options);
  return results.has_failures() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "ninefold: {}\n", error.what());
    return 1;
  }
}
