// The forms of data parallelism: the same gradients as one rank, in the stated number of calls and bytes.
#include "02_ddp/replicate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "01_collectives/collectives.h"
#include "common/comm/mesh.h"
#include "common/train/batches.h"
#include "tests/support/numbers.h"

namespace ninefold {
namespace {

constexpr DdpVariant variants[] = {DdpVariant::naive, DdpVariant::flat, DdpVariant::bucketed, DdpVariant::overlapped};
constexpr double small_bucket_mb = 0.02;  // a handful of buckets

constexpr int64_t batch_size = 24;

GlobalBatch first_batch() {
  GlobalBatch batch{.step = 0, .indices = std::vector<int64_t>(batch_size)};
  std::iota(batch.indices.begin(), batch.indices.end(), 0);
  return batch;
}

using Gradients = std::vector<std::vector<double>>;  // by parameter

Gradients gradients_of(const std::vector<Parameter*>& parameters) {
  Gradients gradients;
  for (const Parameter* parameter : parameters) gradients.push_back(doubles(parameter->gradient));
  return gradients;
}

double norm(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference(a.size());
  std::transform(a.begin(), a.end(), b.begin(), difference.begin(), std::minus<>());
  return norm(difference);
}

// The whole batch on one rank that knows of no other.
Gradients serial_gradients(TrainOptions options, const Task& task) {
  options.resolve(1);
  const DeviceHandle device = make_cpu_device();
  const auto model = task.make_model();
  materialize(*model, device, options.precision(), options.seed);
  const auto parameters = parameters_of(*model);
  accumulate_gradients(*model, parameters, task, device, micro_batches(first_batch(), task, options, 0, 1));
  return gradients_of(parameters);
}

// A model that is replicated over all ranks, with what it needs to live.
struct Ranks {
  Ranks(TrainOptions asked, const DdpOptions& ddp)
      : options(std::move(asked)),
        world(options.world(), collectives::named(options.collectives)),
        mesh(world, {{"dp_replicate", 0}}),
        task(make_task("llama", options)),
        model(task->make_model()),
        replicated(*model, mesh["dp_replicate"], ddp, world.device(), options.grad_dtype),
        parameters(parameters_of(*model)) {
    options.resolve(world.size());
    materialize(*model, world.device(), options.precision(), options.seed);
  }

  void step() {
    accumulate_gradients(*model, parameters, *task, world.device(),
                         micro_batches(first_batch(), *task, options, world.rank(), world.size()));
    replicated.reduce_gradients();
  }

  TrainOptions options;
  World world;
  Mesh mesh;
  std::unique_ptr<Task> task;
  std::unique_ptr<Model> model;
  Replicated replicated;
  std::vector<Parameter*> parameters;
};

// The bound for a tensor t with n of the model's N elements: |d_t| <= 1e-5 max(|t|, |all| sqrt(n / N)) in f32; in bf16
// the serial run's own distance to f32, half as much again, comes on top.
void expect_within_bound(const Gradients& found, const Gradients& serial, const Gradients& reference) {
  double squares = 0, total = 0;
  for (const auto& values : reference) {
    squares += std::pow(norm(values), 2);
    total += static_cast<double>(values.size());
  }
  for (size_t i = 0; i < reference.size(); ++i) {
    const double share = static_cast<double>(reference[i].size()) / total;
    const double scale = std::max(norm(reference[i]), std::sqrt(squares * share));
    EXPECT_LE(distance(found[i], reference[i]), 1e-5 * scale + 1.5 * distance(serial[i], reference[i]))
        << "parameter " << i;
  }
}

// The parameter is what --collectives takes.
class Replicate : public testing::TestWithParam<const char*> {
 protected:
  // Sizes that do not fill 64 bytes: every parameter of the flat buffer but few is followed by padding.
  static TrainOptions options_of(Dtype dtype, Dtype gradient) {
    TrainOptions options;
    options.dtype = dtype;
    options.grad_dtype = gradient;
    options.llama = {.dim = 36, .layers = 2, .heads = 3, .kv_heads = 1, .ffn = 50, .vocab = 256};
    options.data = NINEFOLD_TEST_DATA "/genesis.txt";
    options.length = 16;
    options.batch = batch_size;
    options.collectives = GetParam();
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Collectives, Replicate, testing::Values("ours", "ordered", "mpi"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Replicate, EveryVariantEqualsTheSerialGradients) {
  for (const auto& [dtype, gradient] :
       {std::pair{Dtype::f32, Dtype::f32}, std::pair{Dtype::bf16, Dtype::f32}, std::pair{Dtype::bf16, Dtype::bf16}}) {
    const TrainOptions options = options_of(dtype, gradient);
    Gradients found[std::size(variants)];
    for (const DdpVariant variant : variants) {
      Ranks ranks(options, {variant, small_bucket_mb});
      ranks.step();
      found[static_cast<int>(variant)] = gradients_of(ranks.parameters);
    }
    const auto task = make_task("llama", options);
    const Gradients reference = serial_gradients(options_of(Dtype::f32, Dtype::f32), *task);
    const Gradients serial = serial_gradients(options, *task);
    for (const Gradients& gradients : found) expect_within_bound(gradients, serial, reference);
    for (const Gradients& gradients : found) {
      if (dtype == Dtype::f32) expect_within_bound(gradients, found[0], found[0]);
    }
  }
}

// The calls that a variant makes in a step, counted apart from the code that makes them.
int64_t expected_calls(DdpVariant variant, const std::vector<Parameter*>& parameters) {
  if (variant == DdpVariant::naive) return static_cast<int64_t>(parameters.size());
  if (variant == DdpVariant::flat) return 1;
  int64_t buckets = 1;
  double filled = 0;
  for (auto parameter = parameters.rbegin(); parameter != parameters.rend(); ++parameter) {
    if (filled >= small_bucket_mb * 1e6) {
      ++buckets;
      filled = 0;
    }
    filled += static_cast<double>(rounded((*parameter)->gradient.bytes()));
  }
  return buckets;
}

TEST_P(Replicate, MakesTheStatedCallsHoweverManyMicroBatches) {
  for (const DdpVariant variant : variants) {
    for (const int64_t micro_batch : {0, 1}) {
      TrainOptions options = options_of(Dtype::f32, Dtype::f32);
      options.micro_batch = micro_batch;
      Ranks ranks(options, {variant, small_bucket_mb});
      constexpr int steps = 3;
      for (int step = 0; step < steps; ++step) ranks.step();
      ranks.replicated.predict_traffic(ranks.world.traffic(), steps);
      const TrafficEntry entry = ranks.world.traffic().entry("dp_replicate", Operation::all_reduce);
      const int64_t calls = expected_calls(variant, ranks.parameters);
      EXPECT_EQ(entry.calls, ranks.world.size() == 1 ? 0 : steps * calls);
      EXPECT_EQ(entry.calls, entry.predicted_calls);
      EXPECT_EQ(entry.messages, entry.predicted_messages);
      EXPECT_EQ(entry.bytes, entry.predicted_bytes);
      EXPECT_EQ(entry.bytes > 0, ranks.world.size() > 1);
      EXPECT_EQ(ranks.world.traffic().techniques().size(), ranks.world.size() > 1 ? 1u : 0u);  // and nothing else
    }
  }
}

TEST_P(Replicate, OverlappedReductionsStartDuringTheBackward) {
  for (const DdpVariant variant : {DdpVariant::bucketed, DdpVariant::overlapped}) {
    Ranks ranks(options_of(Dtype::f32, Dtype::f32), {variant, small_bucket_mb});
    if (ranks.world.size() == 1) return;  // one rank sends nothing
    accumulate_gradients(
        *ranks.model, ranks.parameters, *ranks.task, ranks.world.device(),
        micro_batches(first_batch(), *ranks.task, ranks.options, ranks.world.rank(), ranks.world.size()));
    const auto started = ranks.world.traffic().entry("dp_replicate", Operation::all_reduce).calls;
    EXPECT_EQ(started, variant == DdpVariant::overlapped ? expected_calls(variant, ranks.parameters) : 0);
    ranks.replicated.reduce_gradients();
  }
}

// A layer that the forward leaves out: its gradient is zero on every rank, and nobody waits for it.
TEST_P(Replicate, UnusedParametersAreReducedAsZeros) {
  Ranks ranks(options_of(Dtype::f32, Dtype::f32), {DdpVariant::overlapped, small_bucket_mb});
  for (Parameter* parameter : ranks.parameters) {
    ops::fill_(parameter->gradient, 7);
    parameter->zero_gradient();
  }
  for (Parameter* parameter : ranks.parameters) parameter->complete_gradient();
  ranks.replicated.reduce_gradients();
  for (const Parameter* parameter : ranks.parameters) {
    EXPECT_EQ(norm(doubles(parameter->gradient)), 0) << parameter->name;
  }
}

TEST_P(Replicate, BroadcastGivesEveryRankTheParametersOfTheFirst) {
  TrainOptions options = options_of(Dtype::f32, Dtype::f32);
  options.seed = static_cast<uint64_t>(1 + job_rank());  // another model on every rank
  Ranks ranks(options, {DdpVariant::overlapped, small_bucket_mb});
  ranks.replicated.broadcast_parameters();
  for (const Parameter* parameter : ranks.parameters) {
    const Tensor first = Tensor::empty(ranks.world.device(), parameter->shape, Dtype::f32);
    parameter->initialise(first, 1);
    EXPECT_TRUE(same_bits(parameter->value, first)) << parameter->name;
  }
}

TEST_P(Replicate, FlatGradientsAreAlignedViewsOfOneBufferWhosePaddingStaysZero) {
  for (const Dtype gradient : {Dtype::f32, Dtype::bf16}) {
    Ranks ranks(options_of(Dtype::bf16, gradient), {DdpVariant::flat, small_bucket_mb});
    for (int step = 0; step < 2; ++step) ranks.step();
    int64_t padding = 0;
    std::reverse(ranks.parameters.begin(), ranks.parameters.end());  // the order of the backward
    for (size_t i = 0; i < ranks.parameters.size(); ++i) {
      const Tensor& view = ranks.parameters[i]->gradient;
      EXPECT_TRUE(view.shares_storage_with(ranks.parameters[0]->gradient)) << ranks.parameters[i]->name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(view.raw()) % 64, 0u) << ranks.parameters[i]->name;
      const char* const end = static_cast<const char*>(view.raw()) + view.bytes();
      const char* const next = static_cast<const char*>(view.raw()) + rounded(view.bytes());
      EXPECT_TRUE(std::all_of(end, next, [](char byte) { return byte == 0; })) << ranks.parameters[i]->name;
      const bool is_last = i + 1 == ranks.parameters.size();
      EXPECT_TRUE(is_last || ranks.parameters[i + 1]->gradient.raw() == next) << ranks.parameters[i]->name;
      padding += next - end;
    }
    EXPECT_GT(padding, 0);
  }
}

}  // namespace
}  // namespace ninefold
