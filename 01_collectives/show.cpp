// Prints a collective algorithm step by step: which chunks move, what every rank then holds, and how many bytes it has
// sent. Nothing is executed: the plans of all ranks are simulated in this process.
//
// ./run 01/show -- --collective all_reduce --algorithm ring --ranks 4
#include <fmt/format.h>

#include <algorithm>

#include "01_collectives/benchmark/bytes.h"
#include "01_collectives/executor/plan_work.h"
#include "01_collectives/plan/drawing.h"
#include "01_collectives/selector.h"
#include "common/base/options.h"
#include "common/base/report.h"
#include "common/comm/world.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;
using namespace ninefold::collectives;

struct ShowOptions {
  Operation collective = Operation::all_reduce;
  std::string algorithm;
  int ranks = 4;
  int root = 0;
  std::string bytes = "1M";
  std::string svg;

  void declare(Options& options) {
    options.group("What to show");
    options.add_choice<Operation>("--collective", collective, named_collectives(), "the operation");
    options.add("--algorithm", algorithm,
                "how it is done, by default the first there is; an unknown name lists the known ones");
    options.add("--ranks", ranks, "size of the group", {.minimum = 2, .maximum = 16});
    options.add("--root", root, "of broadcast and reduce", {.minimum = 0});
    options.add("--bytes", bytes, "the whole data, of f32, for the table of bytes (K, M, G: powers of 1024)");
    options.add("--svg", svg, "also draw it, into this file");
  }
};

constexpr char digits[] = "0123456789abcdef";

class Show {
 public:
  Show(const ShowOptions& options, const Algorithm& algorithm) : options_(options), algorithm_(algorithm) {
    for (int rank = 0; rank < options.ranks; ++rank) {
      plans_.push_back(algorithm.plan(rank, options.ranks, options.root));
    }
    simulation_ = simulate(algorithm.operation, plans_, options.root);
    for (auto& messages : simulation_.messages) {
      std::sort(messages.begin(), messages.end(),
                [](const Message& a, const Message& b) { return std::pair(a.from, a.to) < std::pair(b.from, b.to); });
    }
  }

  void print() const {
    fmt::print("{} by {}, {} ranks: {}.\n\n", name_of(algorithm_.operation), algorithm_.name, options_.ranks,
               algorithm_.idea);
    print_legend();
    fmt::print("\nat the beginning\n{}", grid(0));
    for (size_t step = 1; step < simulation_.held.size(); ++step) {
      fmt::print("\nstep {} of {}\n{}{}", step, steps(), messages(step - 1), grid(step));
    }
    print_bytes();
  }

  void draw(const std::string& path) const { write_file_atomically(path, drawing(algorithm_.operation, simulation_)); }

 private:
  size_t steps() const { return simulation_.messages.size(); }
  bool is_all_to_all() const { return algorithm_.operation == Operation::all_to_all; }
  bool reduces() const { return Call{.operation = algorithm_.operation}.reduces(); }

  void print_legend() const {
    if (is_all_to_all()) {
      fmt::print(
          "Every rank has a chunk for every rank. A row tells from whom a rank has its chunk: column i is the\n"
          "chunk from rank i, '.' has not arrived, '<' has just arrived.\n");
      return;
    }
    const int chunks = plans_[0].chunks;
    fmt::print("The data are cut into {} chunk{}. A cell tells whose data a rank's version of the chunk holds{}:\n",
               chunks, chunks == 1 ? "" : "s", reduces() ? ", added up" : "");
    fmt::print("'.' nobody's, '<' has just been received{}.\n",
               reduces() ? ", '+' has just been added to, '*' is complete" : "");
  }

  // What the step before has done to the rank's chunk: ' ', '<' or '+'.
  char mark(size_t step, int rank, int chunk) const {
    if (step == 0) return ' ';
    for (const Message& message : simulation_.messages[step - 1]) {
      const std::vector<int> moved = members(message.chunks, plans_[0].chunks);
      if (message.to == rank && std::find(moved.begin(), moved.end(), chunk) != moved.end()) {
        return message.is_added ? '+' : '<';
      }
    }
    return ' ';
  }

  std::string cell(size_t step, int rank, int chunk) const {
    const Version& version = simulation_.held[step][rank][chunk];
    std::string text(1, mark(step, rank, chunk));
    for (const int contributor : version) text += digits[contributor];
    if (version.empty()) text += '.';
    if (reduces() && static_cast<int>(version.size()) == options_.ranks) text += '*';
    return text;
  }

  std::string grid(size_t step) const {
    const int columns = columns_of(algorithm_.operation, simulation_);
    std::vector<std::string> headers = {"        "};
    for (int column = 0; column < columns; ++column) {
      headers.push_back(fmt::format(" {}{}", is_all_to_all() ? "from " : "c", column));
    }
    Table table(headers);
    for (int rank = 0; rank < options_.ranks; ++rank) {
      std::vector<std::string> cells = {fmt::format("  rank {}", digits[rank])};
      for (int column = 0; column < columns; ++column)
        cells.push_back(cell(step, rank, chunk_in_column(algorithm_.operation, rank, column, options_.ranks)));
      table.add_row(cells);
    }
    return table.text();
  }

  std::string messages(size_t step) const {
    std::string text;
    int on_line = 0;
    for (const Message& message : simulation_.messages[step]) {
      const std::string chunk = is_all_to_all() ? "--->" : "--" + name_of(message.chunks, plans_[0].chunks) + "-->";
      text += fmt::format("{}{} {} {}", on_line == 0 ? "  " : "    ", digits[message.from], chunk, digits[message.to]);
      if (++on_line < 6 && &message != &simulation_.messages[step].back()) continue;
      text += '\n';
      on_line = 0;
    }
    return text;
  }

  void print_bytes() const {
    const int64_t bytes = parse_bytes("--bytes", options_.bytes);
    const Call call = call_of_bytes(bytes);
    Table table({"rank", "messages", "bytes sent", "of the whole data"});
    for (int rank = 0; rank < options_.ranks; ++rank) {
      const PlacedPlan plan = placed(plans_[rank], {algorithm_.operation, rank, options_.ranks, options_.root, false});
      const Volume volume = volume_of(call, plan, rank, options_.ranks, whole_chunks);
      table.add_row({fmt::format("{}", rank), fmt::format("{}", volume.messages), fmt::format("{}", volume.bytes),
                     fmt::format("{:.3f}", static_cast<double>(volume.bytes) / static_cast<double>(bytes))});
    }
    fmt::print("\n{} steps. For {} bytes of data, whole chunks in each message:\n\n{}", steps(), bytes, table.text());
  }

  // On paper: tensors without storage.
  Call call_of_bytes(int64_t bytes) const {
    const Operation operation = algorithm_.operation;
    const int64_t part = std::max<int64_t>(bytes / size_of(Dtype::f32) / options_.ranks, 1),
                  whole = part * options_.ranks;
    const DeviceHandle meta = make_meta_device();
    const auto tensor = [&](bool is_part) { return Tensor::empty(meta, {is_part ? part : whole}, Dtype::f32); };
    if (operation == Operation::barrier) return {.operation = operation};
    return {.operation = operation,
            .in = tensor(operation == Operation::all_gather),
            .out = tensor(operation == Operation::reduce_scatter),
            .peer = options_.root};
  }

  const ShowOptions& options_;
  const Algorithm& algorithm_;
  std::vector<Plan> plans_;
  Simulation simulation_;
};

int run(int argc, char** argv) {
  ShowOptions options;
  Options command_line("01/show", "A collective algorithm step by step, without running it.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  if (!on_first_rank()) return 0;
  require(options.root < options.ranks, "--root ({}) must be below --ranks ({})", options.root, options.ranks);
  if (options.algorithm.empty()) options.algorithm = algorithm_names(options.collective).front();
  const Show show(options, find_algorithm(options.collective, options.algorithm));
  show.print();
  if (!options.svg.empty()) show.draw(options.svg);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
