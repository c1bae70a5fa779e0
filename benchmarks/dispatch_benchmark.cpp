// Rows on their way to experts and back: what one forward of a mixture of experts spends on the exchange, beside the
// all_to_all in it and the work of the experts. Each rank has 1024 tokens that visit 2 of 8 experts, width 512, experts
// 1408 wide. Wall time of the slowest rank, in every round.
//
//   mpirun -n 2 dispatch_benchmark --benchmark_filter=even
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <numeric>

#include "01_collectives/collectives.h"
#include "08_expert_parallel/expert_parallel.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"

namespace ninefold {
namespace {

constexpr int64_t dim = 512, ffn = 1408, experts = 8, rows = 2 * 1024;
constexpr int rounds = 15;

using Counts = std::vector<int64_t>;

// The same for every expert; or, as an unbalanced router gives them, 1 / (e + 1) of the first one's.
Counts counts_of(bool even) {
  double all = 0;
  for (int64_t e = 0; e < experts; ++e) all += even ? 1 : 1 / static_cast<double>(e + 1);
  Counts counts;
  for (int64_t e = 0; e < experts; ++e) {
    counts.push_back(static_cast<int64_t>(static_cast<double>(rows) / all / (even ? 1 : static_cast<double>(e + 1))));
  }
  counts[0] += rows - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return counts;
}

// Experts that do nothing: what is left is the exchange.
struct PassOn : Experts {
  Tensor forward(const Tensor& x, const RowCounts&, Saved&) override { return ops::cast(x, x.dtype()); }
  Tensor backward(const Tensor& dy, Saved&) override { return dy; }
};

// Experts of which this rank holds its range, with values.
std::unique_ptr<Experts> own_experts(const DeviceHandle& device, int ranks, Dtype dtype) {
  const ops::Distribution normal{.kind = ops::Distribution::Kind::normal, .width = 0.02};
  auto own = std::make_unique<GroupedExperts>(experts / ranks, dim, ffn, normal, normal);
  for (Parameter* parameter : {&own->w1, &own->w3, &own->w2}) {
    parameter->value = Tensor::empty(device, parameter->shape, dtype);
    ops::fill_random_(parameter->value, normal, 1, 0);
  }
  return own;
}

struct Case {
  Group group;
  DeviceHandle device;
  Dtype dtype;
  bool even;

  Tensor random_rows() const {
    const Tensor x = Tensor::empty(device, {rows, dim}, dtype);
    ops::fill_random_(x, {.kind = ops::Distribution::Kind::uniform, .width = 1}, static_cast<uint64_t>(group.rank()),
                      0);
    return x;
  }
  Tensor exchange(Experts& inner, const Tensor& x) const {
    Step step;
    step.training = false;
    Saved saved(step);
    return inner.forward(x, std::make_shared<const Counts>(counts_of(even)), saved);
  }
};

// Each round begins together and lasts as long as the slowest rank's.
template <typename Body>
void time_rounds(benchmark::State& state, const Group& group, int64_t bytes, const Body& body) {
  for (auto round : state) {
    group.barrier();
    Stopwatch stopwatch;
    body();
    state.SetIterationTime(1e-9 *
                           static_cast<double>(control::max(group, static_cast<int64_t>(stopwatch.seconds() * 1e9))));
  }
  if (bytes > 0) {
    state.counters["sent/s"] = benchmark::Counter(
        static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
  }
}

// Bytes of one way from this rank.
int64_t bytes_sent(const Case& one) {
  const Counts counts = counts_of(one.even);
  const int64_t each = experts / one.group.size(), first = one.group.rank() * each;
  const int64_t kept = std::accumulate(counts.begin() + first, counts.begin() + first + each, int64_t{0});
  return (rows - kept) * dim * size_of(one.dtype);
}

void exchange_alone(benchmark::State& state, const Case& one) {
  ExpertParallel parallel(one.group);
  ExchangedExperts exchanged(std::make_unique<PassOn>(), parallel, 0);
  const Tensor x = one.random_rows();
  const Tensor back = one.exchange(exchanged, x);
  if (back.to_vector<float>() != x.to_vector<float>()) return state.SkipWithError("rows came back wrong");
  time_rounds(state, one.group, 2 * bytes_sent(one), [&] { (void)one.exchange(exchanged, x); });
}

// The same number of rows, in equal parts, without a plan.
void plain_all_to_all(benchmark::State& state, const Case& one) {
  const Tensor x = one.random_rows(), y = one.random_rows();
  const int64_t bytes = x.bytes() / one.group.size() * (one.group.size() - 1);
  time_rounds(state, one.group, 2 * bytes, [&] {
    one.group.all_to_all(y, x);
    one.group.all_to_all(x, y);
  });
}

void exchange_and_experts(benchmark::State& state, const Case& one) {
  ExpertParallel parallel(one.group);
  ExchangedExperts exchanged(own_experts(one.device, one.group.size(), one.dtype), parallel, 0);
  const Tensor x = one.random_rows();
  (void)one.exchange(exchanged, x);
  time_rounds(state, one.group, 0, [&] { (void)one.exchange(exchanged, x); });
}

void plan_alone(benchmark::State& state, const Case& one) {
  std::vector<int32_t> counts;
  for (int rank = 0; rank < one.group.size(); ++rank) {
    for (const int64_t count : counts_of(one.even)) counts.push_back(static_cast<int32_t>(count));
  }
  time_rounds(state, one.group, 0,
              [&] { benchmark::DoNotOptimize(make_exchange_plan(counts, one.group.rank(), one.group.size())); });
}

void register_all(const Group& group, const DeviceHandle& device) {
  const std::pair<const char*, void (*)(benchmark::State&, const Case&)> measured[] = {
      {"plan", plan_alone},
      {"all_to_all_there_and_back", plain_all_to_all},
      {"exchange", exchange_alone},
      {"exchange_and_experts", exchange_and_experts}};
  for (const bool even : {true, false}) {
    for (const auto& [name, function] : measured) {
      const Case one{group, device, Dtype::f32, even};
      benchmark::RegisterBenchmark(fmt::format("{}/{}", name, even ? "even" : "uneven").c_str(),
                                   [function = function, one](benchmark::State& state) { function(state, one); })
          ->Iterations(rounds)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

// For all ranks but the first.
struct Silent : benchmark::BenchmarkReporter {
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const DeviceHandle device = make_cpu_device();
  World world({.device = device}, collectives::ours());
  const Mesh mesh(world, {{"ep", 0}});
  require(experts % world.size() == 0, "experts ({}) must be divisible by the ranks ({})", experts, world.size());
  require(world.size() > 1, "nothing travels between the experts of one rank; start it with mpirun -n 2");
  register_all(mesh["ep"], device);
  Silent silent;
  world.rank() == 0 ? benchmark::RunSpecifiedBenchmarks() : benchmark::RunSpecifiedBenchmarks(&silent);
  benchmark::ClearRegisteredBenchmarks();  // they hold groups
  return 0;
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) { return ninefold::launch(argc, argv, ninefold::run); }
