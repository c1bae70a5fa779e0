#include "01_collectives/benchmark/options.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "01_collectives/algorithms/algorithms.h"
#include "01_collectives/benchmark/bytes.h"
#include "common/base/report.h"

namespace ninefold::collectives {

void BenchOptions::declare(Options& options) {
  options.group("Sizes");
  options.add("-b,--minbytes", smallest, "smallest size of the whole data (K, M, G: powers of 1024)");
  options.add("-e,--maxbytes", largest, "largest size");
  options.add("-f,--stepfactor", factor, "from one size to the next", {.minimum = 2});
  options.group("Timing");
  options.add("-n,--iters", iterations, "calls that are timed together; auto: about a millisecond",
              {.minimum = 1, .may_be_auto = true});
  options.add("-w,--warmup-iters", warmup, "calls before the first round", {.minimum = 0});
  options.add("--rounds", rounds, "in which all take turns; times are medians over them", {.minimum = 1});
  options.add("-c,--check", check, "count wrong elements: 1, or 0 for no", {.minimum = 0, .maximum = 1});
  options.group("What to time");
  options.add("--collective", collective, "a name, or all");
  options.add("--algorithm", algorithm, "all, or names with commas: ours, mpi, or those of the collective");
  options.add("--segment", segment, "segments of the single algorithms; ours chooses its own");
  options.add_choice<ReduceOp>("-o,--op", op,
                               {{"sum", ReduceOp::sum},
                                {"prod", ReduceOp::product},
                                {"min", ReduceOp::min},
                                {"max", ReduceOp::max},
                                {"avg", ReduceOp::avg}},
                               "reduction");
  options.add_choice<Dtype>("-d,--dtype", dtype,
                            {{"f32", Dtype::f32}, {"bf16", Dtype::bf16}, {"f16", Dtype::f16}, {"i32", Dtype::i32}},
                            "type of the elements");
  options.add_choice<DeviceType>("--device", device, {{"cpu", DeviceType::cpu}, {"cuda", DeviceType::cuda}},
                                 "where the data lie: cuda times NCCL, and ours by way of the host's memory");
  options.group("Links");
  options.add("--cluster", cluster,
              "times on these machines in place of wall times: a file, or \"dp_replicate=10GB/s,5us\", a link for each "
              "mesh dimension");
  options.add("--fit", fit,
              "measure each mesh dimension's link with messages from -b to -e, and print it as --cluster reads it");
  options.add("--dp-replicate", dp_replicate, "ranks along this mesh dimension; auto: the ranks left over",
              {.minimum = 1, .may_be_auto = true});
  for (const auto& [name, size] : {std::pair{"--pp", &pp}, {"--dp-shard", &dp_shard}, {"--cp", &cp}, {"--tp", &tp}}) {
    options.add(name, *size, "ranks along this mesh dimension", {.minimum = 1});
  }
  options.group("Report");
  options.add("--report", report, "write the results as JSON to this file");
  options.add("--timeout", timeout, "longest wait for another rank", {.minimum = 0.1, .unit = "s"});
}

void BenchOptions::resolve() {
  smallest_bytes = parse_bytes("-b", smallest);
  largest_bytes = parse_bytes("-e", largest);
  segment_bytes = parse_bytes("--segment", segment);
  require(smallest_bytes <= largest_bytes, "-b ({}) must not be above -e ({})", smallest, largest);
  require(dtype != Dtype::i32 || op != ReduceOp::avg, "-o avg of i32 is not an i32: use another type or sum");
  require(cluster.empty() || !fit, "--fit measures the links of this machine, --cluster gives others; leave one out");
  require(device == DeviceType::cpu || (cluster.empty() && !fit),
          "--device cuda has times of the wall for collectives only; leave {} out", fit ? "--fit" : "--cluster");
  require(!fit || sizes().size() >= 2, "--fit needs two sizes at least; give a smaller -b ({}) or a larger -e ({})",
          smallest, largest);
  if (!report.empty()) require_writable(report, "--report");
}

std::vector<int64_t> BenchOptions::sizes() const {
  std::vector<int64_t> sizes;
  for (int64_t bytes = smallest_bytes; bytes <= largest_bytes; bytes *= factor) {
    sizes.push_back(bytes);
    if (bytes > largest_bytes / factor) break;
  }
  return sizes;
}

std::vector<MeshDimension> BenchOptions::mesh() const {
  const int replicate = dp_replicate == Options::automatic ? 0 : dp_replicate;
  std::vector<MeshDimension> dimensions;
  for (const auto& [name, size] :
       {std::pair{"pp", pp}, {"dp_replicate", replicate}, {"dp_shard", dp_shard}, {"cp", cp}, {"tp", tp}}) {
    if (size != 1 || name == std::string("dp_replicate")) dimensions.push_back({name, size});
  }
  return dimensions;
}

std::vector<Operation> BenchOptions::collectives() const {
  std::vector<Operation> chosen;
  std::vector<std::string> names = {"all"};
  for (const auto& [name, operation] : named_collectives()) {
    names.push_back(name);
    if (collective == "all" || collective == name) chosen.push_back(operation);
  }
  require(!chosen.empty(), "--collective must be one of {}, not '{}'", fmt::join(names, ", "), collective);
  return chosen;
}

std::vector<std::string> BenchOptions::contestants(Operation operation) const {
  const bool on_gpu = device == DeviceType::cuda;
  std::vector<std::string> known = {first_contestant()};
  if (on_gpu) known.push_back("ours");
  if (algorithm == "all" && on_gpu) return known;          // the others tell nothing of a GPU
  if (cluster.empty() && !on_gpu) known.push_back("mpi");  // there are no times for the messages of others
  for (const std::string& name : algorithm_names(operation)) known.push_back(name);
  if (algorithm == "all") return known;
  std::vector<std::string> chosen;
  for (size_t begin = 0; begin <= algorithm.size();) {
    const size_t end = std::min(algorithm.find(',', begin), algorithm.size());
    chosen.push_back(algorithm.substr(begin, end - begin));
    require(std::find(known.begin(), known.end(), chosen.back()) != known.end(),
            "{} has no algorithm '{}': there are {}", name_of(operation), chosen.back(), fmt::join(known, ", "));
    begin = end + 1;
  }
  return chosen;
}

}  // namespace ninefold::collectives
