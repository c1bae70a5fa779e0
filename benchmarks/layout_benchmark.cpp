// The attention kernel on the blocks that a rank of a ring meets: where the layout leaves a part of a block masked, it
// should cost as little as the multiply-adds that are left. One rank of four, one thread, processor time; forward and
// backward of 2,048 queries against 2,048 keys.
//
//   layout_benchmark --benchmark_filter=zigzag
#include <benchmark/benchmark.h>

#include "07_context_parallel/layout.h"
#include "common/base/median.h"
#include "common/base/stopwatch.h"
#include "common/tensor/ops.h"

namespace ninefold {
namespace {

constexpr int ranks = 4, rank = 1, rounds = 5;
constexpr int64_t rows = 2048;
constexpr ops::AttentionShape shape = {.batch = 1, .heads = 8, .kv_heads = 4, .head_dim = 64};

Tensor random(const DeviceHandle& device, int64_t heads, Dtype dtype, uint64_t key) {
  const Tensor x = Tensor::empty(device, {rows, heads * shape.head_dim}, dtype);
  ops::fill_random_(x, {.kind = ops::Distribution::Kind::normal, .width = 1}, key, 0);
  return x;
}

void measure(benchmark::State& state, Dtype dtype, ContextLayout layout, int block) {
  const DeviceHandle device = make_cpu_device();
  const SequenceLayout positions_of(layout, ranks);
  const std::vector<int32_t> queries = positions_of.block_positions(rank, ranks * rows),
                             keys = positions_of.block_positions(block, ranks * rows);
  const Tensor q = random(device, shape.heads, dtype, 1), k = random(device, shape.kv_heads, dtype, 2),
               v = random(device, shape.kv_heads, dtype, 3), dout = random(device, shape.heads, dtype, 4);
  const Tensor q_positions = Tensor::from(device, {rows}, queries), k_positions = Tensor::from(device, {rows}, keys);
  std::vector<double> seconds;
  for (int round = 0; round <= rounds; ++round) {  // the first warms up
    const Stopwatch stopwatch(Clock::thread);
    const ops::Attention forward = ops::attention_block(q, q_positions, k, v, k_positions, shape);
    ops::attention_block_backward(dout, q, q_positions, k, v, k_positions, forward, shape);
    if (round > 0) seconds.push_back(stopwatch.seconds());
  }
  for (auto _ : state) state.SetIterationTime(median(seconds));
  const double pairs = static_cast<double>(visible_pairs(queries, keys));
  state.counters["% of pairs"] = 100 * pairs / static_cast<double>(rows * rows);
  state.counters["GFLOP/s"] = 12 * pairs * static_cast<double>(shape.heads * shape.head_dim) / median(seconds) * 1e-9;
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) {
  using namespace ninefold;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (const ContextLayout layout : {ContextLayout::contiguous, ContextLayout::striped, ContextLayout::zigzag}) {
      for (const int block : {0, rank, ranks - 1}) {
        if (layout == ContextLayout::contiguous && block > rank) continue;  // the mask leaves nothing
        const std::string name = fmt::format("{} {} keys of rank {}", name_of(dtype), name_of(layout), block);
        benchmark::RegisterBenchmark(name.c_str(), measure, dtype, layout, block)
            ->Iterations(1)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
}
