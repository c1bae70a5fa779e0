// The forms of data parallelism: the same gradients as one rank, in the stated number of calls and bytes.
#include "02_ddp/replicate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/comm/mesh.h"
#include "common/train/batches.h"
#include "tests/support/numbers.h"

namespace ninefold {
namespace {

// Sizes that do not fill 64 bytes: every parameter of the flat buffer but few is followed by padding.
TrainOptions options_of(Dtype dtype, Dtype gradient) {
  TrainOptions options;
  options.dtype = dtype;
  options.grad_dtype = gradient;
  options.llama = {.dim = 36, .layers = 2, .heads = 3, .kv_heads = 1, .ffn = 50, .vocab = 256};
  options.length = 16;
  options.batch = 12;
  return options;
}

GlobalBatch first_batch() { return {.step = 0, .indices = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}; }

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
  Ranks(TrainOptions asked, DdpVariant variant)
      : options(std::move(asked)),
        world(options.world(), mpi_collectives()),
        mesh(world, {{"dp_replicate", 0}}),
        task(make_task("llama", options)),
        model(task->make_model()),
        replicated(*model, mesh["dp_replicate"], variant, world.device(), options.grad_dtype),
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

TEST(Replicate, BothVariantsEqualTheSerialGradients) {
  for (const auto& [dtype, gradient] :
       {std::pair{Dtype::f32, Dtype::f32}, std::pair{Dtype::bf16, Dtype::f32}, std::pair{Dtype::bf16, Dtype::bf16}}) {
    const TrainOptions options = options_of(dtype, gradient);
    Gradients found[2];
    for (const DdpVariant variant : {DdpVariant::naive, DdpVariant::flat}) {
      Ranks ranks(options, variant);
      ranks.step();
      found[static_cast<int>(variant)] = gradients_of(ranks.parameters);
    }
    const auto task = make_task("llama", options);
    const Gradients reference = serial_gradients(options_of(Dtype::f32, Dtype::f32), *task);
    const Gradients serial = serial_gradients(options, *task);
    for (const Gradients& gradients : found) expect_within_bound(gradients, serial, reference);
    if (dtype == Dtype::f32) expect_within_bound(found[0], found[1], found[1]);
  }
}

TEST(Replicate, MakesOneCallAParameterOrOneInAll) {
  for (const DdpVariant variant : {DdpVariant::naive, DdpVariant::flat}) {
    Ranks ranks(options_of(Dtype::f32, Dtype::f32), variant);
    constexpr int steps = 3;
    for (int step = 0; step < steps; ++step) ranks.step();
    ranks.replicated.predict_traffic(ranks.world.traffic(), steps);
    const TrafficEntry entry = ranks.world.traffic().entry("dp_replicate", Operation::all_reduce);
    const auto calls = variant == DdpVariant::naive ? static_cast<int64_t>(ranks.parameters.size()) : 1;
    EXPECT_EQ(entry.calls, ranks.world.size() == 1 ? 0 : steps * calls);
    EXPECT_EQ(entry.calls, entry.predicted_calls);
    EXPECT_EQ(entry.bytes, entry.predicted_bytes);
    EXPECT_EQ(entry.bytes > 0, ranks.world.size() > 1);
    EXPECT_EQ(ranks.world.traffic().techniques().size(), ranks.world.size() > 1 ? 1u : 0u);  // and nothing else
  }
}

TEST(Replicate, FlatGradientsAreAlignedViewsOfOneBufferWhosePaddingStaysZero) {
  for (const Dtype gradient : {Dtype::f32, Dtype::bf16}) {
    Ranks ranks(options_of(Dtype::bf16, gradient), DdpVariant::flat);
    for (int step = 0; step < 2; ++step) ranks.step();
    int64_t padding = 0;
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
