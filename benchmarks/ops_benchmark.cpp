// Every operation of ops.h at the sizes of a Llama step (2048 tokens, width 512) and of the MNIST CNN (64 images): its
// rate, and the share of what this core can do. Matmul, attention and convolution are measured against the best matmul
// rate of the same process, everything else against the bandwidth of a copy. Costs are those the operations report.
//
//   ops_benchmark --benchmark_filter='matmul.*bf16'
#include <benchmark/benchmark.h>

#include <cmath>
#include <numeric>

#include "common/base/stopwatch.h"
#include "common/tensor/kernels.h"

namespace ninefold {
namespace {

using Run = std::function<Tensor()>;

struct Cost {
  double flops = 0, bytes = 0;
};

Cost cost_of(const DeviceHandle& device, const Run& run) {
  Cost total;
  device->after_kernel = [&](const KernelCost& cost) {
    total.flops += cost.flops;
    total.bytes += cost.bytes;
  };
  const Tensor result = run();
  device->after_kernel = nullptr;
  expect(result.dtype() == Dtype::i32 || std::isfinite(ops::sum(result)),
         "an operation gave a result that is not finite");
  return total;
}

double fastest_seconds(const Run& run, int repetitions) {
  run();
  double fastest = 1e9;
  for (int i = 0; i < repetitions; ++i) {
    const Stopwatch watch(Clock::thread);
    run();
    fastest = std::min(fastest, watch.seconds());
  }
  return fastest;
}

class Bench {
 public:
  Bench() { std::iota(counting_.begin(), counting_.end(), 0); }

  void register_all() {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      dtype_ = dtype;
      measure_peaks();
      add_matmuls();
      add_experts();
      add_attention({4, 8, 8, 64}, "b8");
      add_attention({2, 12, 4, 64}, "gqa");
      add_convolutions();
      add_elementwise();
      add_norm_and_rope();
      add_embedding_and_losses();
      add_sums_and_updates();
    }
  }

 private:
  // Uniform in [-1, 1).
  Tensor random(const Shape& shape) { return random(shape, dtype_); }
  Tensor random(const Shape& shape, Dtype dtype) {
    const Tensor x = Tensor::empty(device_, shape, dtype);
    ops::fill_random_(x, {ops::Distribution::Kind::uniform, 0.0, 1.0}, ++key_, 0);
    return x;
  }
  Tensor zeros(const Shape& shape) { return Tensor::zeros(device_, shape, Dtype::f32); }
  Tensor indices(int64_t count, int32_t below) {
    std::vector<int32_t> values(count);
    for (int64_t i = 0; i < count; ++i) values[i] = static_cast<int32_t>(i * 7919 % below);
    return Tensor::from(device_, {count}, values);
  }

  // Best of 1024³ and 2048³; and a copy of 64 MiB, read and written once.
  void measure_peaks() {
    peak_flops_ = 0;
    for (const int64_t n : {1024, 2048}) {
      const Tensor a = random({n, n}), b = random({n, n}), out = random({n, n});
      const double seconds = fastest_seconds([&] { return ops::matmul_into(out, a, b), out; }, 10);
      peak_flops_ = std::max(peak_flops_, 2.0 * static_cast<double>(n * n * n) / seconds);
    }
    const Tensor from = random({1 << 24}, Dtype::f32), to = random({1 << 24}, Dtype::f32);
    copy_bandwidth_ =
        2.0 * static_cast<double>(from.bytes()) / fastest_seconds([&] { return ops::copy_(to, from), to; }, 10);
  }

  // `run` is called once to learn its cost and to check that its result is finite, then timed. Operations without FLOPs
  // to speak of are judged by bandwidth.
  enum class Bound { arithmetic, memory };
  void add(const std::string& name, Bound bound, Run run) {
    const std::string full = name + "/" + std::string(name_of(dtype_));
    const double peak = bound == Bound::arithmetic ? peak_flops_ : copy_bandwidth_;
    benchmark::RegisterBenchmark(full.c_str(), [=, device = device_](benchmark::State& state) {
      const Cost cost = cost_of(device, run);
      const Stopwatch watch(Clock::thread);
      for (auto _ : state) benchmark::DoNotOptimize(run().raw());
      const double work = bound == Bound::arithmetic ? cost.flops : cost.bytes;
      const double rate = work * static_cast<double>(state.iterations()) / watch.seconds();
      state.counters[bound == Bound::arithmetic ? "GFLOP/s" : "GB/s"] = rate / 1e9;
      state.counters["% of peak"] = 100 * rate / peak;
    })->Unit(benchmark::kMicrosecond);
  }

  void add_matmul(const std::string& name, int64_t tokens, int64_t in, int64_t out) {
    const Tensor x = random({tokens, in}), w = random({out, in}), dy = random({tokens, out}), dw = zeros({out, in});
    add("matmul " + name + " x W'", Bound::arithmetic, [=] { return ops::matmul(x, w, {.transpose_b = true}); });
    add("matmul " + name + " dy W", Bound::arithmetic, [=] { return ops::matmul(dy, w); });
    add("matmul " + name + " dW += dy' x", Bound::arithmetic, [=] {
      ops::matmul_into(dw, dy, x, {.transpose_a = true, .accumulate = true});
      return dw;
    });
  }
  void add_matmuls() {
    add_matmul("1024", 1024, 1024, 1024);
    add_matmul("2048", 2048, 2048, 2048);
    add_matmul("d256 wq", 2048, 256, 256);
    add_matmul("d256 w1", 2048, 256, 704);
    add_matmul("d256 w2", 2048, 704, 256);
    add_matmul("d512 wq", 2048, 512, 512);
    add_matmul("d512 w1", 2048, 512, 1408);
    add_matmul("d512 w2", 2048, 1408, 512);
    add_matmul("d512 head", 2048, 512, 256);
    add_matmul("d768 wq", 1024, 768, 768);
    add_matmul("d768 wk", 1024, 768, 256);
    add_matmul("d768 w1", 1024, 768, 2048);
    add_matmul("d768 w2", 1024, 2048, 768);
    add_matmul("d768 head", 1024, 768, 32000);
  }

  // 2048 tokens that visit 2 of 8 experts.
  void add_experts() {
    const std::vector<int64_t> counts(8, 512);
    const Tensor x = random({4096, 512}), w = random({8, 1408, 512}), dy = random({4096, 1408}), dw = zeros(w.shape());
    add("grouped_matmul d512 w1 x W'", Bound::arithmetic,
        [=] { return ops::grouped_matmul(x, w, counts, {.transpose_b = true}); });
    add("grouped_matmul d512 w1 dy W", Bound::arithmetic, [=] { return ops::grouped_matmul(dy, w, counts); });
    add("grouped_matmul d512 w1 dW += dy' x", Bound::arithmetic, [=] {
      ops::grouped_matmul_into(dw, dy, x, counts, {.transpose_a = true, .accumulate = true});
      return dw;
    });
    std::vector<int32_t> rows(4096);
    for (int64_t i = 0; i < 4096; ++i) rows[static_cast<size_t>(i)] = static_cast<int32_t>(i * 1031 % 4096);
    const Tensor tokens = random({2048, 512}), sum = random({2048, 512}), weights = random({2048, 2}, Dtype::f32);
    const Tensor index = Tensor::from(device_, {2048, 2}, rows), token_of_row = indices(4096, 2048);
    add("gather_rows", Bound::memory, [=] { return ops::gather_rows(tokens, token_of_row); });
    add("add_weighted_rows", Bound::memory, [=] {
      ops::fill_(sum, 0);
      ops::add_weighted_rows(sum, x, index, weights);
      return sum;
    });
    add("weighted_rows_backward", Bound::memory,
        [=] { return ops::weighted_rows_backward(tokens, x, index, weights).drows; });
  }

  void add_attention(const ops::AttentionShape& shape, const std::string& name) {
    const int64_t length = 512, rows = shape.batch * length;
    const Tensor positions =
        Tensor::from(device_, {length}, std::vector<int32_t>(counting_.begin(), counting_.begin() + length));
    const Tensor q = random({rows, shape.heads * shape.head_dim}), dout = random(q.shape());
    const Tensor k = random({rows, shape.kv_heads * shape.head_dim}), v = random(k.shape());
    const ops::Attention forward = ops::attention_block(q, positions, k, v, positions, shape);
    add("attention " + name + " forward", Bound::arithmetic,
        [=] { return ops::attention_block(q, positions, k, v, positions, shape).out; });
    add("attention " + name + " backward", Bound::arithmetic,
        [=] { return ops::attention_block_backward(dout, q, positions, k, v, positions, forward, shape).dq; });
    const ops::Attention sum = {ops::cast(forward.out, Dtype::f32), forward.log_sum_exp};
    add("merge_attention " + name, Bound::memory, [=] {
      ops::merge_attention_(sum, forward, shape);
      return sum.out;
    });
  }

  void add_convolution(const std::string& name, const Shape& x_shape, const Shape& weight_shape, bool needs_dx) {
    const Tensor x = random(x_shape), weight = random(weight_shape), bias = random({weight_shape[0]});
    const Tensor dy = random(ops::convolution(x, weight, bias).shape());
    const Tensor dweight = zeros(weight_shape), dbias = zeros({weight_shape[0]});
    add("convolution " + name, Bound::arithmetic, [=] { return ops::convolution(x, weight, bias); });
    add("convolution_backward " + name, Bound::arithmetic, [=] {
      ops::convolution_backward(dy, x, weight, dweight, dbias, needs_dx);
      return dweight;
    });
  }
  void add_convolutions() {
    add_convolution("1 to 32", {64, 1, 28, 28}, {32, 1, 3, 3}, false);
    add_convolution("32 to 64", {64, 32, 26, 26}, {64, 32, 3, 3}, true);
    const Tensor x = random({64, 64, 24, 24});
    const ops::MaxPool pooled = ops::max_pool(x);
    const Tensor dy = random(pooled.y.shape());
    add("max_pool", Bound::memory, [=] { return ops::max_pool(x).y; });
    add("max_pool_backward", Bound::memory, [=] { return ops::max_pool_backward(dy, pooled.index, x.shape()); });
  }

  void add_elementwise() {
    const Tensor x = random({2048, 1408}), y = random(x.shape()), dy = random(x.shape()), bias = random({1408});
    const Tensor scratch = random(x.shape()), sums = zeros({1408}), other = random(x.shape(), Dtype::f32);
    add("fill_", Bound::memory, [=] { return ops::fill_(scratch, 0.5f), scratch; });
    add("copy_", Bound::memory, [=] { return ops::copy_(scratch, x), scratch; });
    add("cast from f32", Bound::memory, [=, dtype = dtype_] { return ops::cast(other, dtype); });
    const Tensor q = ops::quantize(x, 0.01f, Dtype::f8_e4m3);
    add("quantize_", Bound::memory, [=] { return ops::quantize_(q, x, 0.01f), x; });
    add("dequantize_", Bound::memory, [=] { return ops::dequantize_(scratch, q, 0.01f), scratch; });
    add("add", Bound::memory, [=] { return ops::add(x, y); });
    add("scale_", Bound::memory, [=] { return ops::scale_(scratch, -1.0f), scratch; });
    add("add_bias_", Bound::memory, [=] { return ops::add_bias_(scratch, bias), scratch; });
    add("add_row_sums", Bound::memory, [=] { return ops::add_row_sums(sums, x), sums; });
    add("relu", Bound::memory, [=] { return ops::relu(x); });
    add("relu_backward", Bound::memory, [=] { return ops::relu_backward(dy, y); });
    add("swiglu", Bound::memory, [=] { return ops::swiglu(x, y); });
    add("swiglu_backward", Bound::memory, [=] { return ops::swiglu_backward(dy, x, y).dgate; });
    add("dropout", Bound::memory, [=] { return ops::dropout(x, 0.25f, {}); });
  }

  void add_norm_and_rope() {
    const Tensor x = random({2048, 512}), residual = random(x.shape()), weight = random({512}), dweight = zeros({512});
    const Tensor dy = random(x.shape()), dsum = random(x.shape()), scratch = random(x.shape());
    const Tensor positions =
        Tensor::from(device_, {512}, std::vector<int32_t>(counting_.begin(), counting_.begin() + 512));
    const ops::RmsNorm forward = ops::rms_norm(x, residual, weight, 1e-5f);
    add("rms_norm", Bound::memory, [=] { return ops::rms_norm(x, residual, weight, 1e-5f).y; });
    add("rms_norm_backward", Bound::memory,
        [=] { return ops::rms_norm_backward(dy, x, residual, weight, forward.inverse_deviation, dsum, dweight); });
    const std::vector<double> frequencies = ops::rope_frequencies(64, 10000.0);
    add("rope_", Bound::memory, [=] {
      ops::rope_(scratch, positions, frequencies, ops::RopeDirection::forward);
      return scratch;
    });
  }

  void add_embedding_and_losses() {
    const Tensor tokens = indices(2048, 256), table = random({256, 512}), dtable = zeros({256, 512});
    const Tensor dy = random({2048, 512}), logits = random({1024, 32000}), targets = indices(1024, 32000);
    const Tensor scores = random({1000, 10}), digits = indices(1000, 10);
    const Tensor log_sum_exp = ops::cross_entropy(logits, targets).log_sum_exp, chances = ops::log_softmax(scores);
    add("embedding", Bound::memory, [=] { return ops::embedding(tokens, table); });
    add("embedding_backward", Bound::memory, [=] { return ops::embedding_backward(dtable, tokens, dy), dtable; });
    add("cross_entropy", Bound::memory, [=] { return ops::cross_entropy(logits, targets).losses; });
    add("cross_entropy_backward_", Bound::memory,
        [=] { return ops::cross_entropy_backward_(logits, targets, log_sum_exp, 1e-3f), logits; });
    const ops::VocabularyPart part{0, 16000};
    add("partial_cross_entropy", Bound::memory,
        [=] { return ops::partial_cross_entropy(logits, targets, part).log_sum_exp; });
    add("log_softmax", Bound::memory, [=] { return ops::log_softmax(scores); });
    add("nll", Bound::memory, [=] { return ops::nll(chances, digits); });
    add("log_softmax_nll_backward", Bound::memory,
        [=] { return ops::log_softmax_nll_backward(chances, digits, 1e-3f); });
    add("count_correct", Bound::memory, [=] { return ops::count_correct(scores, digits), digits; });
  }

  // Updates of master weights in f32, with a copy for computing where that is bf16.
  void add_sums_and_updates() {
    const Shape shape = {1 << 22};
    const Tensor x = random(shape), parameter = random(shape, Dtype::f32), gradient = random(shape, Dtype::f32);
    const Tensor first = zeros(shape), second = zeros(shape), square_avg = zeros(shape), acc_delta = zeros(shape);
    const Tensor momentum = zeros(shape);
    const ops::UpdateTensors update = {parameter, gradient, dtype_ == Dtype::bf16 ? x : Tensor(), 1.0f};
    add("sum", Bound::memory, [=] { return ops::sum(x), x; });
    add("absolute_max", Bound::memory, [=] { return ops::absolute_max(x), x; });
    add("sum_of_squares", Bound::memory, [=] { return ops::sum_of_squares(x), x; });
    add("fill_random_", Bound::memory, [=] {
      return ops::fill_random_(x, {ops::Distribution::Kind::normal, 0.0, 1.0}, 1, 0), x;
    });
    add("adamw_", Bound::memory, [=] {
      return ops::adamw_(update, first, second, {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 10}), parameter;
    });
    add("adadelta_", Bound::memory, [=] {
      return ops::adadelta_(update, square_avg, acc_delta, {1e-3f, 0.9f, 1e-6f, 0.0f}), parameter;
    });
    add("sgd_", Bound::memory, [=] { return ops::sgd_(update, momentum, {1e-3f, 0.9f, 0.0f, 10}), parameter; });
  }

  DeviceHandle device_ = make_cpu_device();
  Dtype dtype_ = Dtype::f32;
  uint64_t key_ = 0;
  double peak_flops_ = 0, copy_bandwidth_ = 0;
  std::vector<int32_t> counting_ = std::vector<int32_t>(512);
};

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  ninefold::Bench bench;
  bench.register_all();
  benchmark::RunSpecifiedBenchmarks();
}
