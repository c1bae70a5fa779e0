// The matmuls of one Llama block at the widths that tensor parallelism leaves a rank: how much of the matmul peak is
// lost when each becomes narrower. Forward and backward, one rank, one thread, processor time.
//
//   width_benchmark --benchmark_filter=f32
#include <benchmark/benchmark.h>

#include "benchmarks/llama_training.h"
#include "common/base/median.h"

namespace ninefold {
namespace {

constexpr int rounds = 9;

// y [n, out] = x [n, in] Wᵀ, its dx and its dW.
struct Product {
  Product(const DeviceHandle& device, Dtype dtype, int64_t n, int64_t out, int64_t in)
      : x(Tensor::zeros(device, {n, in}, dtype)),
        weight(Tensor::zeros(device, {out, in}, dtype)),
        y(Tensor::zeros(device, {n, out}, dtype)),
        dweight(Tensor::zeros(device, {out, in}, Dtype::f32)) {}
  void run() const {
    ops::matmul_into(y, x, weight, {.transpose_b = true});
    ops::matmul_into(x, y, weight);
    ops::matmul_into(dweight, y, x, {.transpose_a = true, .accumulate = true});
  }
  double flops() const { return 6.0 * static_cast<double>(x.size() * y.dim(1)); }
  Tensor x, weight, y, dweight;
};

void measure(benchmark::State& state, Dtype dtype, int64_t tp) {
  const LlamaConfig& llama = configurations[1].llama;
  const DeviceHandle device = make_cpu_device();
  const int64_t n = configurations[1].length * configurations[1].batch, heads = llama.dim / tp, ffn = llama.ffn / tp;
  std::vector<Product> products;
  for (int i = 0; i < 3; ++i) products.emplace_back(device, dtype, n, heads, llama.dim);  // wq, wk, wv
  products.emplace_back(device, dtype, n, llama.dim, heads);                              // wo
  for (int i = 0; i < 2; ++i) products.emplace_back(device, dtype, n, ffn, llama.dim);    // w1, w3
  products.emplace_back(device, dtype, n, llama.dim, ffn);                                // w2
  double flops = 0;
  for (const Product& product : products) flops += product.flops();

  const auto peak = [&] { return measure_matmul_peak(device, dtype, {{n, llama.dim, llama.dim}}, Clock::thread); };
  std::vector<double> seconds;
  for (const Product& product : products) product.run();  // warms up
  const double before = peak();
  for (int round = 0; round < rounds; ++round) {
    const Stopwatch stopwatch(Clock::thread);
    for (const Product& product : products) product.run();
    seconds.push_back(stopwatch.seconds());
  }
  const double flops_per_second = flops / median(seconds);
  for (auto _ : state) state.SetIterationTime(median(seconds));
  state.counters["GFLOP/s"] = flops_per_second * 1e-9;
  state.counters["% of peak"] = 100 * flops_per_second / ((before + peak()) / 2);
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) {
  using namespace ninefold;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const int64_t tp : {1, 2, 4, 8}) {
      const std::string name = fmt::format("block b {} tp {}", name_of(dtype), tp);
      benchmark::RegisterBenchmark(name.c_str(), measure, dtype, tp)
          ->Iterations(1)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
