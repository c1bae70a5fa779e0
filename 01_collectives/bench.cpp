// Times collectives as nccl-tests does, with its options and columns: ours, each algorithm by itself, and MPI's own
// blocking call, side by side in one run. They take turns, and the median over the rounds is reported, so that whatever
// else the machine does hits all of them. With --cluster the times are virtual, those of machines that are described;
// --fit describes this one.
//
// ./run 01/bench -- -b 4 -e 64M -f 4 --collective all_reduce
// ./run 01/bench -n 8 -- --cluster "dp_replicate=1GB/s,20us"
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "01_collectives/benchmark/blocking_mpi.h"
#include "01_collectives/benchmark/exercise.h"
#include "01_collectives/benchmark/fit.h"
#include "01_collectives/benchmark/options.h"
#include "01_collectives/collectives.h"
#include "common/base/report.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "common/comm/world.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;
using namespace ninefold::collectives;

// What one contestant achieved at one size; negative times where it does not exist.
struct Measured {
  double seconds = -1;
  double against_mpi = -1;  // MPI's time in the same round / own time, the median over the rounds
  int64_t wrong = 0;        // over all ranks
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Absent: wall time. Computing takes no time, so that the clocks only ever move by communication.
std::optional<Cluster> cluster_of(const BenchOptions& options) {
  if (options.cluster.empty()) return std::nullopt;
  Cluster cluster = Cluster::parse(options.cluster);
  cluster.compute = ComputeRate{.flops = std::numeric_limits<double>::infinity()};
  return cluster;
}

class Bench {
 public:
  Bench(const BenchOptions& options, const DeviceHandle& device)
      : options_(options),
        world_(
            {.device = device, .timeout = options.timeout, .cluster = cluster_of(options)},
            [this](Transport& transport) { return uses_nccl_ ? nccl_(transport) : chosen_by(chooser())(transport); }) {
    require(world_.size() > 1,
            "a collective needs at least 2 ranks; start it with mpirun -n 2, or ./run 01/bench -n 2");
    mesh_.emplace(world_, options.mesh());
  }

  // Measures the links in place of collectives.
  int fit(const nlohmann::ordered_json& option_values) {
    nlohmann::ordered_json report = {{"program", "01/bench"}, {"options", option_values}, {"ranks", world_.size()}};
    report.update(fit_links(*mesh_, options_));
    write(report);
    return 0;
  }

  int run(const nlohmann::ordered_json& option_values) {
    nlohmann::ordered_json report = {
        {"program", "01/bench"}, {"options", option_values}, {"ranks", world_.size()}, {"time", "wall"}};
    if (is_virtual()) {
      report["time"] = "virtual";
      print("# {} ranks, -b {} -e {} -f {}, check {}\n", world_.size(), options_.smallest, options_.largest,
            options_.factor, options_.check);
    } else {
      report["copy_mechanism"] = copy_mechanism(world_.group());
      print("# {} ranks, -b {} -e {} -f {}, {} rounds, {} warm-up calls, check {}\n", world_.size(), options_.smallest,
            options_.largest, options_.factor, options_.rounds, options_.warmup, options_.check);
      print("# copies between processes: {}\n", report["copy_mechanism"].get<std::string>());
    }
    for (const Operation operation : options_.collectives()) run_collective(operation);
    print("# wrong elements: {} {}\n", wrong_, wrong_ == 0 ? "OK" : "FAILED");
    print("# average busbw of {}: {:.3f} GB/s\n", options_.first_contestant(),
          bus_bandwidths_ > 0 ? bus_bandwidth_sum_ / bus_bandwidths_ : 0);
    if (is_virtual()) {
      print("# times are virtual: those of the machines of --cluster \"{}\" on {}\n", options_.cluster,
            to_string(*mesh_));
    }
    report["results"] = results_;
    write(report);
    return wrong_ == 0 ? 0 : 1;
  }

 private:
  bool is_virtual() const { return world_.virtual_time() != nullptr; }

  void write(const nlohmann::ordered_json& report) const {
    if (!options_.report.empty() && on_first_rank()) write_file_atomically(options_.report, report.dump(1) + "\n");
  }

  // How the next group chooses: the single algorithm for its operation, everything else, such as barriers, as always.
  Chooser chooser() const {
    if (!single_) return fastest;
    return [algorithm = single_, segment = options_.segment_bytes](Operation operation, int64_t bytes, int ranks) {
      return operation == algorithm->operation ? Choice{algorithm, segment} : fastest(operation, bytes, ranks);
    };
  }

  // All ranks, with the collectives of the contestant.
  const Group& group_of(Operation operation, const std::string& contestant) {
    if (contestant == "ours" || contestant == "mpi") return world_.group();
    uses_nccl_ = contestant == "nccl";
    if (uses_nccl_ && !nccl_) nccl_ = nccl_collectives(ours());
    single_ = uses_nccl_ ? nullptr : &find_algorithm(operation, contestant);
    const auto known = groups_.find(single_);
    if (known != groups_.end()) return known->second;
    return groups_[single_] = world_.make_group(contestant, world_.group().members());
  }

  template <typename... Args>
  static void print(fmt::format_string<Args...> text, Args&&... args) {
    if (!on_first_rank()) return;
    fmt::print(text, std::forward<Args>(args)...);
    std::fflush(stdout);
  }

  void run_collective(Operation operation) {
    const std::vector<std::string> contestants = options_.contestants(operation);
    print("#\n# {}\n", name_of(operation));
    print("#{:>19} {:>44} {:^36}   {:^36}\n", "", "", "out of place", "in place");
    print("#{:>11} {:>11} {:>5} {:>6}  {:<18}", "size", "count", "type", "redop", "algorithm");
    for (int i = 0; i < 2; ++i) print(" {:>10} {:>7} {:>7} {:>6} {:>6}", "time", "algbw", "busbw", "#wrong", "x mpi");
    print("\n#{:>11} {:>11} {:>5} {:>6}  {:<18}", "(B)", "(elements)", "", "", "");
    for (int i = 0; i < 2; ++i) print(" {:>10} {:>7} {:>7} {:>6} {:>6}", "(us)", "(GB/s)", "(GB/s)", "", "");
    print("\n");
    for (const int64_t bytes : options_.sizes()) run_size(operation, bytes, contestants);
  }

  void run_size(Operation operation, int64_t bytes, const std::vector<std::string>& contestants) {
    std::vector<Measured> results[2];
    int64_t count = 0, exact_bytes = 0;
    for (const bool in_place : {false, true}) {
      results[in_place].resize(contestants.size());
      if (!Exercise::exists(operation, in_place)) continue;
      const Exercise exercise(world_.group(), operation, options_.op, options_.dtype, bytes, in_place);
      count = exercise.count();
      exact_bytes = exercise.bytes();
      results[in_place] = is_virtual() ? measure_in_virtual_time(exercise, operation, contestants)
                                       : measure(exercise, operation, contestants);
    }
    for (size_t i = 0; i < contestants.size(); ++i) {
      const bool reduces = Call{.operation = operation}.reduces();
      print(" {:>11} {:>11} {:>5} {:>6}  {:<18}", exact_bytes, count, name_of(options_.dtype),
            reduces ? name_of(options_.op) : "none", contestants[i]);
      for (const bool in_place : {false, true}) print_measured(results[in_place][i], operation, exact_bytes);
      print("\n");
      book(operation, exact_bytes, contestants[i], results[0][i], results[1][i]);
    }
  }

  std::vector<Measured> measure(const Exercise& exercise, Operation operation,
                                const std::vector<std::string>& contestants) {
    std::vector<Measured> measured(contestants.size());
    std::vector<bool> takes_part(contestants.size());
    for (size_t i = 0; i < contestants.size(); ++i) {
      takes_part[i] = contestants[i] != "mpi" || exercise.exists_on_mpi();
      if (!takes_part[i]) continue;
      exercise.fill();
      repeat(exercise, operation, contestants[i], 1);
      if (options_.check) measured[i].wrong = total(exercise.wrong());
      repeat(exercise, operation, contestants[i], options_.warmup);
    }
    const int iterations = iterations_for(exercise, operation, contestants[0]);
    std::vector<std::vector<double>> seconds(contestants.size());
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t turn = 0; turn < contestants.size(); ++turn) {
        const size_t i = round % 2 == 0 ? turn : contestants.size() - 1 - turn;
        if (takes_part[i]) seconds[i].push_back(time(exercise, operation, contestants[i], iterations));
      }
    }
    summarise(seconds, contestants, measured);
    return measured;
  }

  // The same once or a hundred times, so once.
  std::vector<Measured> measure_in_virtual_time(const Exercise& exercise, Operation operation,
                                                const std::vector<std::string>& contestants) {
    VirtualClock& clock = *world_.virtual_clock();
    std::vector<Measured> measured(contestants.size());
    for (size_t i = 0; i < contestants.size(); ++i) {
      exercise.fill();
      const double begin = slowest({clock.now()}).front();
      clock.wait_until(begin);
      repeat(exercise, operation, contestants[i], 1);
      measured[i].seconds = slowest({clock.now()}).front() - begin;
      if (options_.check) measured[i].wrong = total(exercise.wrong());
    }
    return measured;
  }

  // Times of the slowest rank, round by round.
  void summarise(std::vector<std::vector<double>>& seconds, const std::vector<std::string>& contestants,
                 std::vector<Measured>& measured) const {
    for (auto& of_one : seconds) of_one = slowest(of_one);
    const size_t mpi = std::find(contestants.begin(), contestants.end(), "mpi") - contestants.begin();
    for (size_t i = 0; i < contestants.size(); ++i) {
      if (seconds[i].empty()) continue;
      measured[i].seconds = median(seconds[i]);
      if (mpi == contestants.size() || seconds[mpi].empty()) continue;
      std::vector<double> ratios;
      for (size_t round = 0; round < seconds[i].size(); ++round)
        ratios.push_back(seconds[mpi][round] / seconds[i][round]);
      measured[i].against_mpi = median(ratios);
    }
  }

  void repeat(const Exercise& exercise, Operation operation, const std::string& contestant, int times) {
    if (contestant == "mpi") {
      for (int n = 0; n < times; ++n) exercise.run_on_mpi();
    } else {
      const Group& group = group_of(operation, contestant);
      for (int n = 0; n < times; ++n) exercise.run_on(group);
    }
  }

  double time(const Exercise& exercise, Operation operation, const std::string& contestant, int iterations) {
    world_.group().barrier();
    const Stopwatch stopwatch;
    repeat(exercise, operation, contestant, iterations);
    world_.device()->host_access().synchronize();
    return stopwatch.seconds() / iterations;
  }

  int iterations_for(const Exercise& exercise, Operation operation, const std::string& contestant) {
    if (options_.iterations != Options::automatic) return options_.iterations;
    const double seconds = slowest({time(exercise, operation, contestant, 5)}).front();
    return static_cast<int>(std::clamp(1e-3 / seconds, 1.0, 1000.0));
  }

  std::vector<double> slowest(const std::vector<double>& own) const {
    std::vector<double> result = own;
    for (const std::string& bytes : control::all_gather_bytes(world_.group(), control::to_bytes(own))) {
      const std::vector<double> theirs = control::from_bytes<double>(bytes);
      for (size_t i = 0; i < result.size(); ++i) result[i] = std::max(result[i], theirs[i]);
    }
    return result;
  }

  int64_t total(int64_t own) const {
    return static_cast<int64_t>(control::sum(world_.group(), static_cast<double>(own)));
  }

  void print_measured(const Measured& measured, Operation operation, int64_t bytes) const {
    if (measured.seconds < 0) {
      print(" {:>10} {:>7} {:>7} {:>6} {:>6}", "-", "-", "-", "-", "-");
      return;
    }
    const double bandwidth = static_cast<double>(bytes) / measured.seconds * 1e-9;
    print(" {:>10.2f} {:>7.3f} {:>7.3f} {:>6} {:>6}", measured.seconds * 1e6, bandwidth,
          bandwidth * bus_factor(operation, world_.size()), options_.check ? fmt::format("{}", measured.wrong) : "-",
          measured.against_mpi < 0 ? "-" : fmt::format("{:.2f}", measured.against_mpi));
  }

  nlohmann::ordered_json as_json(const Measured& measured, Operation operation, int64_t bytes) const {
    const double bandwidth = static_cast<double>(bytes) / measured.seconds * 1e-9;
    nlohmann::ordered_json json = {{"time_us", measured.seconds * 1e6},
                                   {"algbw_gb_s", bandwidth},
                                   {"busbw_gb_s", bandwidth * bus_factor(operation, world_.size())}};
    if (options_.check) json["wrong"] = measured.wrong;
    if (measured.against_mpi > 0) json["against_mpi"] = measured.against_mpi;
    return json;
  }

  void book(Operation operation, int64_t bytes, const std::string& contestant, const Measured& out_of_place,
            const Measured& in_place) {
    const Measured& main = out_of_place.seconds >= 0 ? out_of_place : in_place;
    if (main.seconds < 0) return;
    nlohmann::ordered_json result = {
        {"collective", name_of(operation)}, {"algorithm", contestant}, {"bytes", bytes}, {"ranks", world_.size()}};
    result.update(as_json(main, operation, bytes));
    if (out_of_place.seconds >= 0 && in_place.seconds >= 0) result["in_place"] = as_json(in_place, operation, bytes);
    results_.push_back(result);
    wrong_ += out_of_place.wrong + in_place.wrong;
    if (contestant != options_.first_contestant()) return;
    bus_bandwidth_sum_ += result["busbw_gb_s"].get<double>();
    ++bus_bandwidths_;
  }

  const BenchOptions& options_;
  const Algorithm* single_ = nullptr;  // of the next group; none: ours
  bool uses_nccl_ = false;             // the next group
  CollectivesFactory nccl_{};          // made when it is asked for
  World world_;
  std::optional<Mesh> mesh_;
  std::map<const Algorithm*, Group> groups_;  // nullptr: on NCCL
  nlohmann::ordered_json results_ = nlohmann::ordered_json::array();
  int64_t wrong_ = 0;
  double bus_bandwidth_sum_ = 0;
  int bus_bandwidths_ = 0;
};

int run(int argc, char** argv) {
  BenchOptions options;
  Options command_line("01/bench", "Times collectives: ours, each algorithm, and MPI's own, side by side.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) {
    if (on_first_rank()) fmt::print("{}", *help);
    return 0;
  }
  options.resolve();
  Bench bench(options, make_device(options.device, 1));
  return options.fit ? bench.fit(command_line.values()) : bench.run(command_line.values());
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
