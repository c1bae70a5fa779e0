// One transformer block under tensor parallelism, attention and feed-forward, forward and backward: as many ranks as
// the job has share it. Checks its results against the whole block, then times the slowest rank by the wall clock, and
// compares with the matmul peak of all ranks.
//
//   mpirun -n 2 block_benchmark --benchmark_filter=f32
#include <benchmark/benchmark.h>

#include "01_collectives/collectives.h"
#include "05_tensor_parallel/parallelize.h"
#include "benchmarks/llama_training.h"
#include "common/base/median.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"
#include "common/comm/world.h"
#include "common/nn/f8_linears.h"

namespace ninefold {
namespace {

constexpr int rounds = 9;
constexpr uint64_t seed = 1;
constexpr Children block = {1, 2};  // between the embedding and the last norm

struct Way {
  const char* name;
  Dtype dtype = Dtype::f32;
  bool by_rows = true, async = false;
  std::string f8_linears{};
  double bound = 1e-5;  // of the distance to the whole block of the same type, relative: order of sums, and rounding
};

const Way ways[] = {{.name = "f32, sequence parallel"},
                    {.name = "f32, all reduced", .by_rows = false},
                    {.name = "f32, async", .async = true},
                    {.name = "bf16, sequence parallel", .dtype = Dtype::bf16, .bound = 2e-2},
                    {.name = "f8 emulated, sequence parallel", .f8_linears = "layers.*", .bound = 5e-2}};

LlamaConfig one_layer() {
  LlamaConfig config = configurations[1].llama;
  config.layers = 1;
  return config;
}

int64_t tokens() { return configurations[1].batch * configurations[1].length; }

double block_flops() {
  const LlamaConfig config = one_layer();
  const double head = 6.0 * static_cast<double>(config.vocab * config.dim);
  return (llama_flops_per_token(config, configurations[1].length) - head) * static_cast<double>(tokens());
}

Tensor random_rows(const DeviceHandle& device, Dtype dtype, uint64_t key) {
  const Tensor x = Tensor::empty(device, {tokens(), one_layer().dim}, dtype);
  ops::fill_random_(x, {.kind = ops::Distribution::Kind::normal, .width = 1}, key, 0);
  return x;
}

// A model of one block, whole or divided.
class Block {
 public:
  Block(const DeviceHandle& device, const Way& way) : device_(device) {
    multiply_in_f8(*model_, way.f8_linears);
    materialize(*model_, device, {.compute = way.dtype}, seed);
  }
  Block(const Group& group, const Way& way) : device_(group.world().device()) {
    Plan plan = llama_plan(one_layer(), way.by_rows, /*loss_parallel=*/true);
    plan.async = way.async;
    plan.f8_linears = way.f8_linears;
    parallel_ = parallelize(*model_, group, plan);
    materialize(*model_, device_, {.compute = way.dtype}, seed);
  }

  struct Results {
    Tensor y, dx;
  };
  Results run(const Tensor& x, const Tensor& dy) {
    for (Parameter* parameter : parameters_) parameter->zero_gradient();
    Step step;
    step.rows_per_sample = configurations[1].length;
    step.positions = positions_;
    Saved saved(std::move(step));
    const Tensor y = model_->forward(x, saved, block);
    return {y, model_->backward(dy, saved, block)};
  }

 private:
  static Tensor count(const DeviceHandle& device, int64_t length) {
    std::vector<int32_t> numbers(static_cast<size_t>(length));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i);
    return Tensor::from(device, {length}, numbers);
  }

  DeviceHandle device_;
  std::unique_ptr<Model> model_ = make_llama(one_layer());
  std::unique_ptr<TensorParallel> parallel_;
  std::vector<Parameter*> parameters_ = parameters_of(*model_);
  Tensor positions_ = count(device_, configurations[1].length);
};

// The distance of `found` to the reference, relative to its norm.
double distance(const Tensor& found, const Tensor& reference) {
  const Tensor difference = ops::cast(found, Dtype::f32), whole = ops::cast(reference, Dtype::f32);
  const double norm = std::sqrt(ops::sum_of_squares(whole).value());
  ops::scale_(whole, -1);
  ops::add_(difference, whole);
  return std::sqrt(ops::sum_of_squares(difference).value()) / norm;
}

// This rank's rows, or all of them.
Tensor part_of(const Tensor& x, const Group& group, bool by_rows) {
  if (!by_rows) return x;
  const int64_t rows = x.dim(0) / group.size();
  return x.rows(group.rank() * rows, (group.rank() + 1) * rows);
}

void check(const Group& group, const Way& way, Block& divided, const Tensor& x, const Tensor& dy) {
  Block whole(group.world().device(), way);
  const auto expected = whole.run(x, dy);
  const auto found = divided.run(part_of(x, group, way.by_rows), part_of(dy, group, way.by_rows));
  const double y = distance(found.y, part_of(expected.y, group, way.by_rows));
  const double dx = distance(found.dx, part_of(expected.dx, group, way.by_rows));
  expect(y <= way.bound && dx <= way.bound, "{}: the block is {:.1e}, its gradient {:.1e} away from the whole one",
         way.name, y, dx);
}

double slowest(const Group& group, double seconds) {
  const auto all = control::all_gather(group, seconds);
  return *std::max_element(all.begin(), all.end());
}

double peak_of_all(const Group& group, Dtype dtype) {
  group.barrier();
  const LlamaConfig config = one_layer();
  return control::sum(group, measure_matmul_peak(make_cpu_device(), dtype, {{tokens(), config.dim, config.dim}}));
}

void measure(benchmark::State& state, const Group& group, const Way& way) {
  const DeviceHandle& device = group.world().device();
  const Tensor x = random_rows(device, way.dtype, 1), dy = random_rows(device, way.dtype, 2);
  Block divided(group, way);
  check(group, way, divided, x, dy);  // warms up, too
  const Tensor own_x = part_of(x, group, way.by_rows), own_dy = part_of(dy, group, way.by_rows);
  const double before = peak_of_all(group, way.dtype);
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    group.barrier();
    const Stopwatch stopwatch;
    divided.run(own_x, own_dy);
    seconds.push_back(slowest(group, stopwatch.seconds()));
  }
  const double peak = (before + peak_of_all(group, way.dtype)) / 2, rate = block_flops() / median(seconds);
  for (auto _ : state) state.SetIterationTime(median(seconds));
  state.counters["GFLOP/s"] = rate * 1e-9;
  state.counters["% of peak"] = 100 * rate / peak;
}

// Of the ranks that leave the words to the first.
struct Silent : benchmark::BenchmarkReporter {
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>&) override {}
};

int run(int, char**) {
  World world({.device = make_cpu_device()}, collectives::ours());
  const Mesh mesh(world, {{"tp", 0}});
  for (const Way& way : ways) {
    const std::string name = fmt::format("block b tp {}: {}", world.size(), way.name);
    benchmark::RegisterBenchmark(name.c_str(), measure, mesh["tp"], way)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  Silent silent;
  world.rank() == 0 ? benchmark::RunSpecifiedBenchmarks() : benchmark::RunSpecifiedBenchmarks(&silent);
  benchmark::ClearRegisteredBenchmarks();  // they hold the group, which must not outlive the world
  return 0;
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  return ninefold::launch(argc, argv, ninefold::run);
}
