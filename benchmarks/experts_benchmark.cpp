// The products of a layer of experts as ragged groups, beside one matmul of the same total work: what is lost by giving
// each group of rows a matrix of its own. 2048 tokens that visit 2 of 8 experts, width 512, experts 1408 wide. One
// thread, processor time, medians of alternating calls.
//
//   experts_benchmark --benchmark_filter=even
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "common/base/median.h"
#include "common/base/stopwatch.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

constexpr int64_t dim = 512, ffn = 1408, experts = 8, tokens = 2048, top_k = 2;
constexpr int rounds = 21;

using Counts = std::vector<int64_t>;

// Loads as an unbalanced router gives them: expert e has the share 1 / (e + 1) of the first one's.
Counts ragged_counts() {
  double all = 0;
  for (int64_t e = 0; e < experts; ++e) all += 1 / static_cast<double>(e + 1);
  Counts counts;
  for (int64_t e = 0; e < experts; ++e) {
    counts.push_back(static_cast<int64_t>(tokens * top_k / (static_cast<double>(e + 1) * all)));
  }
  counts[0] += tokens * top_k - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  return counts;
}

// y = x Wᵀ, dx = dy W, dW += dyᵀ x, for all rows with one matrix and for each group with its own.
struct Products {
  Products(Dtype dtype, int64_t in, int64_t out)
      : x(random({rows, in}, dtype)),
        dy(random({rows, out}, dtype)),
        weight(random({out, in}, dtype)),
        weights(random({experts, out, in}, dtype)),
        dweight(random({out, in}, Dtype::f32)),
        dweights(random({experts, out, in}, Dtype::f32)) {}

  Tensor random(const Shape& shape, Dtype dtype) {
    const Tensor tensor = Tensor::empty(device, shape, dtype);
    ops::fill_random_(tensor, {ops::Distribution::Kind::uniform, 0.0, 1.0}, static_cast<uint64_t>(++key), 0);
    return tensor;
  }
  Tensor forward() const { return ops::matmul(x, weight, {.transpose_b = true}); }
  Tensor forward(const Counts& counts) const { return ops::grouped_matmul(x, weights, counts, {.transpose_b = true}); }
  Tensor input_gradient() const { return ops::matmul(dy, weight); }
  Tensor input_gradient(const Counts& counts) const { return ops::grouped_matmul(dy, weights, counts); }
  Tensor weight_gradient() const {
    ops::matmul_into(dweight, dy, x, {.transpose_a = true, .accumulate = true});
    return dweight;
  }
  Tensor weight_gradient(const Counts& counts) const {
    ops::grouped_matmul_into(dweights, dy, x, counts, {.transpose_a = true, .accumulate = true});
    return dweights;
  }

  static constexpr int64_t rows = tokens * top_k;
  DeviceHandle device = make_cpu_device();
  int key = 0;
  Tensor x, dy, weight, weights, dweight, dweights;
};

template <typename Run>
double seconds_of(const Run& run) {
  const Stopwatch watch(Clock::thread);
  const Tensor result = run();
  const double seconds = watch.seconds();
  expect(std::isfinite(ops::sum(result.rows(0, 1))), "a product is not finite");
  return seconds;
}

struct Operation {
  const char* name;
  Tensor (Products::*one)() const;
  Tensor (Products::*grouped)(const Counts&) const;
};
constexpr Operation operations[] = {{"x W'", &Products::forward, &Products::forward},
                                    {"dy W", &Products::input_gradient, &Products::input_gradient},
                                    {"dW += dy' x", &Products::weight_gradient, &Products::weight_gradient}};

void measure(benchmark::State& state, Dtype dtype, int64_t in, int64_t out, const Operation& operation,
             const Counts& counts) {
  const Products products(dtype, in, out);
  const auto one = [&] { return seconds_of([&] { return (products.*operation.one)(); }); };
  const auto grouped = [&] { return seconds_of([&] { return (products.*operation.grouped)(counts); }); };
  one(), grouped();  // warm up
  std::vector<double> of_one, of_groups, ratios;
  for (int round = 0; round < rounds; ++round) {
    of_one.push_back(one());
    of_groups.push_back(grouped());
    ratios.push_back(of_one.back() / of_groups.back());
  }
  for (auto _ : state) state.SetIterationTime(median(of_groups));
  const double flops = 2.0 * static_cast<double>(products.x.size() * out);
  state.counters["GFLOP/s"] = flops / median(of_groups) * 1e-9;
  state.counters["GFLOP/s of one"] = flops / median(of_one) * 1e-9;
  state.counters["% of one"] = 100 * median(ratios);
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) {
  using namespace ninefold;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const std::pair<const char*, Counts> divisions[] = {{"even", Counts(experts, tokens * top_k / experts)},
                                                      {"ragged", ragged_counts()}};
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const auto& [division, counts] : divisions) {
      for (const auto& [weight, in, out] : {std::tuple{"w1", dim, ffn}, std::tuple{"w2", ffn, dim}}) {
        for (const Operation& operation : operations) {
          const std::string name = fmt::format("{} {} {} {}", weight, operation.name, division, name_of(dtype));
          benchmark::RegisterBenchmark(name.c_str(), measure, dtype, in, out, operation, counts)
              ->Iterations(1)
              ->UseManualTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
