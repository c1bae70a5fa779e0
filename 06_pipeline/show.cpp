// Draws a pipeline schedule and says what it costs: who computes what when, the bubble, the memory. Nothing is
// executed: the table of actions is simulated in this process.
//
// ./run 06/show -- --schedule zb-h1 --stages 4 --micro-batches 8
#include <fmt/ranges.h>

#include <optional>

#include "06_pipeline/drawing/svg.h"
#include "06_pipeline/drawing/time_slots.h"
#include "06_pipeline/generators/generators.h"
#include "06_pipeline/schedule/csv.h"
#include "06_pipeline/schedule/peak.h"
#include "common/base/check.h"
#include "common/base/options.h"
#include "common/base/report.h"
#include "common/comm/world.h"
#include "common/train/options.h"
#include "common/data/file.h"

namespace {

using namespace ninefold;
using namespace ninefold::pipeline;

struct ShowOptions {
  std::string schedule = "1f1b";
  std::string schedule_csv, times_file, svg, csv;
  PipelineSize size{4, 8, 2};
  StageTimes stage;
  double communication = 0;
  double kept_for_weights = 1;

  void declare(Options& options) {
    options.group("The schedule");
    options.add_choice("--schedule", schedule, generator_names(), "how the work is ordered");
    options.add("--stages", size.ranks, "ranks in the pipeline: stages, of which a rank may hold several virtual ones",
                {.minimum = 1, .maximum = 1024});
    options.add("--micro-batches", size.micro_batches, "that a step's batch is cut into",
                {.minimum = 1, .maximum = 65536});
    options.add("--virtual-stages", size.virtual_stages, "stages on a rank, for interleaved",
                {.minimum = 1, .maximum = 1024});
    options.add("--schedule-csv", schedule_csv, "a table of your own instead: row = rank, cell = action like 2F5");
    options.group("Times, in any unit");
    options.add("--f", stage.forward, "a stage's forward of a micro-batch", {.minimum = 0});
    options.add("--b", stage.input_gradient, "its backward without the weight gradients", {.minimum = 0});
    options.add("--w", stage.weight_gradient, "its weight gradients", {.minimum = 0});
    options.add("--comm", communication, "from the end of a stage to its message's arrival on another rank",
                {.minimum = 0});
    options.add("--times", times_file, "a file with a line 'F B W' for each stage, instead of --f, --b and --w");
    options.group("Results");
    options.add("--w-memory", kept_for_weights, "part of a stage's activations that is kept from I to W",
                {.minimum = 0});
    options.add("--svg", svg, "file for a drawing, true to the times");
    options.add("--csv", csv, "file for the table");
  }
};

void check_options(const ShowOptions& options, const Options& command_line) {
  const auto exclude = [&](std::string_view one, std::string_view other) {
    require(!command_line.given(one) || !command_line.given(other), "{} and {} exclude each other; give one", one,
            other);
  };
  for (const char* own : {"--f", "--b", "--w"}) exclude("--times", own);
  for (const char* own : {"--schedule", "--virtual-stages"}) exclude("--schedule-csv", own);
  require(!command_line.given("--virtual-stages") || find_generator(options.schedule).stages_per_rank == 0,
          "--virtual-stages is for interleaved; {} has its own number of stages on a rank ({})", options.schedule,
          find_generator(options.schedule).stages_per_rank);
  require(options.stage.sum() > 0, "--f, --b and --w are all 0; something must take time");
  if (!options.svg.empty()) require_writable(options.svg, "--svg");
  if (!options.csv.empty()) require_writable(options.csv, "--csv");
}

CheckedSchedule read_schedule(const ShowOptions& options, const Options& command_line) {
  if (options.schedule_csv.empty()) {
    return CheckedSchedule(find_generator(options.schedule).make(options.size), options.schedule);
  }
  const Schedule table = parse_csv(read_file(options.schedule_csv), options.schedule_csv);
  const std::optional<int> ranks = command_line.given("--stages") ? std::optional(options.size.ranks) : std::nullopt;
  const std::optional<int> micro_batches =
      command_line.given("--micro-batches") ? std::optional(options.size.micro_batches) : std::nullopt;
  require_size(table, ranks, micro_batches, options.schedule_csv);
  return CheckedSchedule(table, options.schedule_csv);
}

Times read_times(const ShowOptions& options, int stages) {
  if (options.times_file.empty()) {
    return {std::vector<StageTimes>(stages, options.stage), options.communication};
  }
  Times times{parse_times(read_file(options.times_file), options.times_file), options.communication};
  const int found = static_cast<int>(times.stages.size());
  require(found == stages, "{} has times for {} stages, but the schedule has {}", options.times_file, found, stages);
  return times;
}

std::string title_of(const ShowOptions& options, const CheckedSchedule& schedule) {
  return fmt::format("{}: {} ranks, {} stages, {} micro-batches",
                     options.schedule_csv.empty() ? options.schedule : options.schedule_csv, schedule.ranks(),
                     schedule.stages(), schedule.micro_batches());
}

void print_grid(const CheckedSchedule& schedule) {
  constexpr size_t most_slots = 300;
  const Schedule slots = in_time_slots(schedule);
  size_t columns = 0;
  for (const Row& row : slots) columns = std::max(columns, row.size());
  if (columns > most_slots) {
    fmt::print("The grid has {} columns, too many for a terminal; --svg draws it.\n", columns);
    return;
  }
  fmt::print(
      "2F5 = stage 2, forward, micro-batch 5; I input gradient, W weight gradient, B both, '.' idle. In the grid\n"
      "every action takes one slot and B two; the times below are as given.\n\n{}",
      grid_of(slots));
}

void print_costs(const CheckedSchedule& schedule, const Simulation& simulation, double kept_for_weights) {
  Table table({"rank", "stages", "peak live micro-batches", "peak activations", "computes", "from", "to"});
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const Peak peak = peak_of(schedule, rank, kept_for_weights);
    const RankTime time = simulation.ranks[rank];
    table.add_row({fmt::format("{}", rank), fmt::format("{}", fmt::join(schedule.stages_of(rank), " ")),
                   fmt::format("{}", peak.live), fmt::format("{:.2f}", peak.activations),
                   fmt::format("{:.3f}", time.busy), fmt::format("{:.3f}", time.start),
                   fmt::format("{:.3f}", time.end)});
  }
  fmt::print("\n{}", table.text());
  fmt::print("\nActivations are in units of what one stage keeps of one micro-batch.\n");
  fmt::print("time   {:.3f} from the first action to the last; the longest on one rank: {:.3f}\n", simulation.total,
             simulation.cost());
  fmt::print("bubble {:.4f} of the longest time on one rank, on average over the ranks\n", simulation.bubble());
}

int run(int argc, char** argv) {
  ShowOptions options;
  Options command_line("06/show", "A pipeline schedule: its table, its bubble and its memory, without running it.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  if (!on_first_rank()) return 0;
  check_options(options, command_line);
  const CheckedSchedule schedule = read_schedule(options, command_line);
  const Simulation simulation = simulate(schedule, read_times(options, schedule.stages()));

  const std::string title = title_of(options, schedule);
  fmt::print("{}\n", title);
  if (options.schedule_csv.empty()) fmt::print("{}\n", find_generator(options.schedule).idea);
  fmt::print("\n");
  print_grid(schedule);
  print_costs(schedule, simulation, options.kept_for_weights);
  if (!options.svg.empty()) {
    write_file_atomically(options.svg,
                          svg_of(schedule, simulation, fmt::format("{}, bubble {:.4f}", title, simulation.bubble())));
  }
  if (!options.csv.empty()) write_file_atomically(options.csv, csv_of(in_time_slots(schedule)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
