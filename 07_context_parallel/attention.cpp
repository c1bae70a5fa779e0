// One attention layer, forward and backward, over the ranks of a job in every layout: its time, what is sent, who
// computes how much, and how far its results are from those of one rank.
//
// ./run 07/attention -n 2 -- --length 8192
#include <algorithm>

#include "01_collectives/collectives.h"
#include "07_context_parallel/measurement/measurement.h"
#include "common/base/report.h"
#include "common/base/text.h"
#include "common/comm/mesh.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  AttentionProblem problem;
  std::string layouts = "all";
  int64_t repeat = 3;
  int ulysses = 0, machine_ranks = 0;
  bool baseline = true;
  Dtype merge = Dtype::f32;
  std::string cluster;

  void declare(Options& options) {
    options.group("Attention");
    options.add("--length", problem.length, "of the sequence", {.minimum = 1, .unit = "tokens"});
    options.add("--batch", problem.batch, "sequences", {.minimum = 1});
    options.add("--heads", problem.heads, "query heads", {.minimum = 1});
    options.add("--kv-heads", problem.kv_heads, "key and value heads", {.minimum = 1});
    options.add("--head-dim", problem.head_dim, "width of a head", {.minimum = 1});
    options.add_choice<Dtype>("--dtype", problem.dtype, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}}, "of q, k, v");
    options.group("Layouts");
    options.add("--layout", layouts, "some of them, separated by commas, or all that fit");
    options.add("--ulysses", ulysses, "of hybrid: neighbours that exchange heads; 0: two", {.minimum = 0});
    options.add_choice<Dtype>("--merge-dtype", merge, {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}},
                              "in which the ring adds up the parts of attention's result");
    options.group("Measurement");
    options.add("--repeat", repeat, "runs of each layout, in turn; times are their medians", {.minimum = 1});
    options.add("--baseline", baseline, "compute the same on rank 0 alone, and compare with it");
    options.add("--cluster", cluster,
                "report the time on these machines instead, such as \"cp=10GB/s,5us compute=1TF/s\"");
    options.add("--machine-ranks", machine_ranks,
                "neighbours on one machine, joined by the link cp; others by the link machines; 0: all",
                {.minimum = 0});
  }

  // Those named; under `all` those that fit the problem.
  std::vector<SequenceLayout> chosen(int ranks) const;
};

std::vector<SequenceLayout> ProgramOptions::chosen(int ranks) const {
  std::vector<std::string_view> names;
  for (const auto& [layout, name] : ninefold::layouts) names.push_back(name);
  const bool takes_all = layouts == "all";
  const std::vector<std::string_view> words = takes_all ? names : split(layouts, ',');
  std::vector<SequenceLayout> found;
  for (const std::string_view word : words) {
    const auto place = std::find(names.begin(), names.end(), word);
    require(place != names.end(), "--layout {} is none; there are all, {}", word, fmt::join(names, ", "));
    const ContextLayout layout = ninefold::layouts[place - names.begin()].first;
    try {
      const SequenceLayout one(layout, ranks, layout == ContextLayout::hybrid ? ulysses : 0);
      if (takes_all && layout == ContextLayout::hybrid && one.blocks() == 1) continue;  // that is ulysses
      one.validate(problem.length, problem.heads, problem.kv_heads);
      found.push_back(one);
    } catch (const UserError&) {
      if (!takes_all) throw;
    }
  }
  require(!found.empty(), "no layout fits a length of {} and {} kv-heads on {} ranks; a multiple of {} does",
          problem.length, problem.kv_heads, ranks, 2 * ranks);
  return found;
}

std::string in_milliseconds(double seconds) { return fmt::format("{:.3f}", seconds * 1e3); }

void print_times(const std::vector<AttentionRun>& runs, const AttentionRun* alone, bool is_virtual) {
  const auto times = [&](const AttentionRun& run) { return is_virtual ? run.virtual_time : run.wall; };
  Table table({"layout", "ms", "times one rank", "by balance", "exposed ms", "without overlap"});
  for (const AttentionRun& run : runs) {
    const bool is_divided = &run != alone;
    table.add_row(
        {run.name, in_milliseconds(times(run).seconds),
         alone ? fmt::format("{:.2f}", times(*alone).seconds / times(run).seconds) : "-",
         fmt::format("{:.2f}", run.speed_up_by_balance()), is_divided ? in_milliseconds(times(run).exposed) : "-",
         run.has_ring ? in_milliseconds(is_virtual ? run.virtual_without_overlap : run.wall_without_overlap) : "-"});
  }
  fmt::print("\n{} time, forward and backward\n{}", is_virtual ? "virtual" : "wall", table.text());
}

void print_work(const std::vector<AttentionRun>& runs) {
  Table table({"layout", "multiply-adds of each rank (G)", "", "sent forward", "backward", ""});
  for (const AttentionRun& run : runs) {
    std::string each;
    for (const int64_t counted : run.counted) {
      each += fmt::format("{}{:.3f}", each.empty() ? "" : " ", static_cast<double>(counted) * 1e-9);
    }
    table.add_row({run.name, each, run.counted == run.predicted ? "as predicted" : "DIFFERENT",
                   human_bytes(static_cast<double>(run.sent_forward)),
                   human_bytes(static_cast<double>(run.sent_backward)),
                   run.is_sent_as_predicted ? "equal to the byte" : "DIFFERENT"});
  }
  fmt::print("\n{}", table.text());
}

void print_errors(const std::vector<AttentionRun>& runs) {
  Table table({"error against f32", "out", "dq", "dk", "dv"});
  for (const AttentionRun& run : runs) {
    std::vector<std::string> row = {run.name};
    for (const double error : run.errors) row.push_back(fmt::format("{:.1e}", error));
    table.add_row(row);
  }
  fmt::print("\n{}", table.text());
}

int run(int argc, char** argv) {
  ProgramOptions options;
  const AttentionProblem& problem = options.problem;
  Options command_line("07/attention", "One attention layer in every layout of context parallelism.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  require(problem.heads % problem.kv_heads == 0, "heads ({}) must be divisible by kv-heads ({})", problem.heads,
          problem.kv_heads);

  WorldOptions world_options{.device = make_cpu_device()};
  if (!options.cluster.empty()) world_options.cluster = Cluster::parse(options.cluster);
  World world(world_options, collectives::ours());
  const Mesh mesh(world, {{"machines", options.machine_ranks == 0 ? 1 : 0}, {"cp", options.machine_ranks}});
  const std::vector<SequenceLayout> chosen = options.chosen(world.size());
  AttentionMeasurement measurement(mesh.flatten({"machines", "cp"}), problem, options.repeat);

  std::vector<AttentionRun> runs;
  if (options.baseline) runs.push_back(measurement.alone());
  for (const SequenceLayout& layout : chosen) runs.push_back(measurement.divided(layout, options.merge));

  const AttentionRun* const alone = options.baseline ? &runs.front() : nullptr;
  bool is_right = true;
  for (const AttentionRun& one : runs) {
    is_right &= one.counted == one.predicted && one.is_sent_as_predicted;
    // Rounding in every merge is what --merge-dtype bf16 is there to show.
    if (alone && options.merge == Dtype::f32) is_right &= one.is_within(alone->errors);
  }
  if (on_first_rank()) {
    fmt::print("attention of {}, over {} ranks\n", to_string(problem), world.size());
    print_times(runs, alone, !options.cluster.empty());
    print_work(runs);
    if (alone) print_errors(runs);
    fmt::print("\n{}\n", is_right ? "PASSED" : "FAILED");
  }
  return is_right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
