// The whole training step of a Llama on one rank and one thread (forward, loss, backward, gradient norm and clipping,
// AdamW) as a share of this process's matmul peak; the same with each fusion undone; and where its time goes.
//
// All times are processor time of the thread, for step and peak alike: time in which others have the core is not
// counted. Peak and step alternate, and every figure is a median.
//
//   step_benchmark --benchmark_filter='step b'
//
// With --device cuda the steps run on a GPU, and by the clock of the wall; --vendor-peak gives what its vendor
// promises, in TFLOP/s, and adds the MFU: FLOPs of the model over those.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>

#include "benchmarks/llama_training.h"
#include "benchmarks/unfused_kernels.h"
#include "common/base/median.h"

namespace ninefold {
namespace {

constexpr int rounds = 7;

double seconds_of_step(LlamaTraining& training) {
  const Stopwatch stopwatch(training.clock());
  training.step();
  training.device().host_access().synchronize();
  return stopwatch.seconds();
}

// Where steps run, and how fast its vendor says that is; 0 where nobody has.
struct Place {
  DeviceType device = DeviceType::cpu;
  double vendor_flops = 0;
};

// Three steps, which also warm up: the loss is finite and falls. Returns the last one.
double check(LlamaTraining& training) {
  double loss = std::numeric_limits<double>::infinity();
  for (int step = 0; step < 3; ++step) {
    const double before = loss;
    loss = training.step();
    expect(std::isfinite(loss) && loss < before, "the loss of step {} is {} after {}", step, loss, before);
  }
  return loss;
}

void measure_step(benchmark::State& state, const Configuration& configuration, Dtype dtype, const Place& place) {
  LlamaTraining training(configuration, dtype, place.device);
  check(training);
  std::vector<double> seconds, peaks = {training.matmul_peak()}, shares;
  for (int round = 0; round < rounds; ++round) {
    seconds.push_back(seconds_of_step(training));
    peaks.push_back(training.matmul_peak());
    const double peak_around = (peaks[round] + peaks[round + 1]) / 2;
    shares.push_back(training.flops() / seconds.back() / peak_around);
  }
  for (auto _ : state) state.SetIterationTime(median(seconds));
  state.counters["GFLOP/s"] = training.flops() / median(seconds) * 1e-9;
  state.counters["peak GFLOP/s"] = median(peaks) * 1e-9;
  state.counters["% of peak"] = 100 * median(shares);
  if (place.vendor_flops > 0) state.counters["MFU %"] = 100 * training.flops() / median(seconds) / place.vendor_flops;
  state.counters["tokens/s"] = static_cast<double>(training.rows()) / median(seconds);
}

// How many times as long as the fused step one takes in which a fusion is undone.
void measure_unfused(benchmark::State& state, const Configuration& configuration, Dtype dtype,
                     const unfused::Form& form) {
  LlamaTraining fused(configuration, dtype), unfused(configuration, dtype);
  unfused.device().decorate_kernels(form.undo);
  const double fused_loss = check(fused), unfused_loss = check(unfused);
  expect(std::abs(unfused_loss - fused_loss) < 1e-2 * fused_loss, "the loss is {} without {}, {} with it", unfused_loss,
         form.fusion, fused_loss);
  std::vector<double> seconds, ratios;
  for (int round = 0; round < rounds; ++round) {
    const double fused_seconds = seconds_of_step(fused);
    seconds.push_back(seconds_of_step(unfused));
    ratios.push_back(seconds.back() / fused_seconds);
  }
  for (auto _ : state) state.SetIterationTime(median(seconds));
  state.counters["times fused"] = median(ratios);
}

struct OperationTime {
  int calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
};

// Time between the ends of two operations counts for the second.
std::map<std::string, OperationTime> times_by_operation(LlamaTraining& training) {
  std::map<std::string, OperationTime> times;
  Stopwatch stopwatch(Clock::thread);
  training.device().after_kernel = [&](const KernelCost& cost) {
    OperationTime& time = times[cost.name];
    time.seconds += stopwatch.restart();
    time.calls += 1;
    time.flops += cost.flops;
    time.bytes += cost.bytes;
  };
  stopwatch.restart();
  for (int round = 0; round < rounds; ++round) training.step();
  training.device().after_kernel = nullptr;
  return times;
}

void print_operations(benchmark::State& state, const Configuration& configuration, Dtype dtype) {
  LlamaTraining training(configuration, dtype);
  check(training);
  const auto by_name = times_by_operation(training);
  std::vector<std::pair<std::string, OperationTime>> times(by_name.begin(), by_name.end());
  std::sort(times.begin(), times.end(), [](auto& a, auto& b) { return a.second.seconds > b.second.seconds; });
  double total = 0;
  for (const auto& [name, time] : times) total += time.seconds;
  fmt::print("\n{:<28} {:>6} {:>9} {:>8} {:>9} {:>7}\n", "operation", "calls", "ms", "% time", "GFLOP/s", "GB/s");
  for (const auto& [name, time] : times) {
    fmt::print("{:<28} {:>6} {:>9.3f} {:>8.2f} {:>9.1f} {:>7.1f}\n", name, time.calls / rounds,
               time.seconds / rounds * 1e3, 100 * time.seconds / total, time.flops / time.seconds * 1e-9,
               time.bytes / time.seconds * 1e-9);
  }
  for (auto _ : state) state.SetIterationTime(total / rounds);
}

template <typename Function, typename... Arguments>
void add(const std::string& name, Function function, const Arguments&... arguments) {
  benchmark::RegisterBenchmark(name.c_str(), function, arguments...)
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

void add_steps(const Configuration& configuration, const Place& place) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    add(fmt::format("step {} {}", configuration.name, name_of(dtype)), measure_step, configuration, dtype, place);
  }
}

void add_all(const Place& place) {
  for (const Configuration& configuration : configurations) add_steps(configuration, place);
  if (place.device == DeviceType::cuda) return add_steps(billion, place);
  const Configuration& b = configurations[1];
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const unfused::Form& form : unfused::forms) {
      add(fmt::format("step b {} without {}", name_of(dtype), form.fusion), measure_unfused, b, dtype, form);
    }
  }
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    add(fmt::format("step b {} by operation", name_of(dtype)), print_operations, b, dtype);
  }
}

}  // namespace
}  // namespace ninefold

namespace ninefold {
namespace {

int run(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);  // takes its own options away
  Place place;
  double vendor_peak = 0;
  Options options("step_benchmark", "Times the training step of Llamas on one rank.");
  options.add_choice<DeviceType>("--device", place.device, {{"cpu", DeviceType::cpu}, {"cuda", DeviceType::cuda}},
                                 "where it runs");
  options.add("--vendor-peak", vendor_peak, "what the vendor promises for matmuls of this type",
              {.minimum = 0, .unit = "TFLOP/s"});
  if (const auto help = options.parse(argc, argv)) return print_help(*help);
  place.vendor_flops = vendor_peak * 1e12;
  add_all(place);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) { return ninefold::launch(argc, argv, ninefold::run); }
