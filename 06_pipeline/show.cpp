// Draws a pipeline schedule and says what it costs: who computes what when, the bubble, the memory. Nothing is
// executed: the table of actions is simulated in this process.
//
// ./run 06/show -- --schedule zb-h1 --stages 4 --micro-batches 8
#include <fmt/ranges.h>

#include <optional>

#include "06_pipeline/drawing/svg.h"
#include "06_pipeline/drawing/time_slots.h"
#include "06_pipeline/generators/choice.h"
#include "06_pipeline/schedule/csv.h"
#include "06_pipeline/schedule/peak.h"
#include "common/base/check.h"
#include "common/base/options.h"
#include "common/base/report.h"
#include "common/comm/world.h"
#include "common/data/file.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;
using namespace ninefold::pipeline;

struct ShowOptions {
  ScheduleChoice choice;
  int stages = 4, micro_batches = 8;
  std::string times_file, svg, csv;
  StageTimes stage;
  double communication = 0;
  double kept_for_weights = 1;

  void declare(Options& options) {
    options.group("The schedule");
    choice.declare(options);
    options.add("--stages", stages, "ranks in the pipeline: stages, of which a rank may hold several virtual ones",
                {.minimum = 1, .maximum = 1024});
    options.add("--micro-batches", micro_batches, "that a step's batch is cut into", {.minimum = 1, .maximum = 65536});
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
  options.choice.validate(command_line);
  for (const char* own : {"--f", "--b", "--w"}) {
    require(!command_line.given("--times") || !command_line.given(own), "--times and {} exclude each other; give one",
            own);
  }
  require(options.stage.sum() > 0, "--f, --b and --w are all 0; something must take time");
  if (!options.svg.empty()) require_writable(options.svg, "--svg");
  if (!options.csv.empty()) require_writable(options.csv, "--csv");
}

CheckedSchedule read_schedule(const ShowOptions& options, const Options& command_line) {
  const ScheduleChoice& choice = options.choice;
  const Schedule table = choice.table(options.stages, options.micro_batches);
  const auto if_given = [&](std::string_view option, int value) {
    return command_line.given(option) ? std::optional(value) : std::nullopt;
  };
  if (choice.is_from_file()) {
    require_size(table, if_given("--stages", options.stages), if_given("--micro-batches", options.micro_batches),
                 choice.name());
  }
  return CheckedSchedule(table, choice.name());
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

  const std::string title = title_of(schedule, options.choice.name());
  fmt::print("{}\n", title);
  if (!options.choice.is_from_file()) fmt::print("{}\n", find_generator(options.choice.schedule).idea);
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
