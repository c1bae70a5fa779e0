// A linear layer in 8 bits that several ranks share rounds as one rank would.
#include <gtest/gtest.h>

#include <algorithm>

#include "01_collectives/collectives.h"
#include "03_zero_fsdp/divide.h"
#include "05_tensor_parallel/f8.h"
#include "05_tensor_parallel/linear.h"
#include "05_tensor_parallel/parallelize.h"
#include "05_tensor_parallel/pieces.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"
#include "common/comm/world.h"
#include "tests/support/numbers.h"

namespace ninefold {
namespace {

constexpr int64_t tokens = 16, features = 32, outputs = 24;

// Each row, and each column, much smaller than the one before: the parts of two ranks have other largest elements.
Tensor steep(const DeviceHandle& device, int64_t rows, int64_t columns, uint32_t seed) {
  const Tensor x = random_tensor(device, {rows, columns}, Dtype::f32, seed);
  for (int64_t i = 0; i < x.size(); ++i) {
    x.data<float>()[i] *= std::exp2(-static_cast<float>(i / columns + i % columns) / 4);
  }
  return x;
}

Tensor columns_of(const Tensor& x, const Group& group) { return own_columns(group, x); }
Tensor rows_of(const Tensor& x, const Group& group) {
  const int64_t rows = x.dim(0) / group.size();
  return x.rows(group.rank() * rows, (group.rank() + 1) * rows);
}

// A linear layer of f8 with this weight; its scale is known, as it is in training.
std::unique_ptr<Linear> linear_of(const Tensor& weight, float scale) {
  auto linear = std::make_unique<Linear>(weight.dim(1), weight.dim(0), ops::Distribution{});
  linear->weight.value = linear->weight.owned.value = weight;
  linear->weight.gradient = Tensor::empty(weight.device(), weight.shape(), Dtype::f32);
  linear->weight.zero_gradient();
  linear->weight.f8_scale = scale;
  linear->in_f8 = true;
  return linear;
}

struct Results {
  Tensor y, dx, dweight;
};

template <typename Divided>
Results run(Divided& layer, const Parameter& weight, const Tensor& x, const Tensor& dy) {
  Saved saved((Step()));
  Results results;
  results.y = layer.forward(x, saved);
  results.dx = layer.backward(dy, saved);
  results.dweight = weight.gradient;
  return results;
}

struct Case {
  explicit Case(const DeviceHandle& device)
      : x(steep(device, tokens, features, 1)),
        weight(steep(device, outputs, features, 2)),
        dy(steep(device, tokens, outputs, 3)),
        scale(f8_scale(ops::absolute_max(weight), Dtype::f8_e4m3)),
        linear(linear_of(copy_of(weight), scale)),
        serial(run(*linear, linear->weight, x, dy)) {}
  Tensor x, weight, dy;
  float scale;
  std::unique_ptr<Linear> linear;
  Results serial;
};

double distance(const Tensor& x, const Tensor& y) {
  const auto a = doubles(x), b = doubles(y);
  double worst = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return worst / largest;
}

// Beyond rounding to f8 there is only the order of sums.
constexpr double order_of_sums = 2e-7;

void for_each_layout(const std::function<void(const Group&, bool by_rows)>& body) {
  World world({.device = make_cpu_device()}, collectives::ours());
  const Mesh mesh(world, {{"tp", 0}});
  for (const bool by_rows : {false, true}) body(mesh["tp"], by_rows);
}

TEST(F8Linear, ColumnParallelRoundsAsOneRank) {
  for_each_layout([](const Group& group, bool by_rows) {
    const Case whole(group.world().device());
    auto linear = linear_of(copy_of(rows_of(whole.weight, group)), whole.scale);
    const Parameter& weight = linear->weight;
    const LayerEnd input(by_rows ? Conjugate::gather_rows : Conjugate::copy, group, 0);
    ColumnParallelLinear layer(std::move(linear), input, LayerEnd(Conjugate::none, group, 0));
    const Results found = run(layer, weight, by_rows ? rows_of(whole.x, group) : whole.x, columns_of(whole.dy, group));
    EXPECT_LT(distance(found.y, columns_of(whole.serial.y, group)), order_of_sums);
    EXPECT_LT(distance(found.dx, by_rows ? rows_of(whole.serial.dx, group) : whole.serial.dx), order_of_sums);
    EXPECT_LT(distance(found.dweight, rows_of(whole.serial.dweight, group)), order_of_sums);
  });
}

TEST(F8Linear, RowParallelRoundsAsOneRank) {
  for_each_layout([](const Group& group, bool by_rows) {
    const Case whole(group.world().device());
    auto linear = linear_of(columns_of(whole.weight, group), whole.scale);
    const Parameter& weight = linear->weight;
    const LayerEnd output(by_rows ? Conjugate::scatter_rows : Conjugate::reduce, group, 0);
    RowParallelLinear layer(std::move(linear), LayerEnd(Conjugate::none, group, 0), output);
    const Results found = run(layer, weight, columns_of(whole.x, group), by_rows ? rows_of(whole.dy, group) : whole.dy);
    EXPECT_LT(distance(found.y, by_rows ? rows_of(whole.serial.y, group) : whole.serial.y), order_of_sums);
    EXPECT_LT(distance(found.dx, columns_of(whole.serial.dx, group)), order_of_sums);
    EXPECT_LT(distance(found.dweight, columns_of(whole.serial.dweight, group)), order_of_sums);
  });
}

// What is allowed above is less than what a rank does that rounds its part of the weight by a scale of its own.
TEST(F8Linear, AnotherScaleOnOneRankShows) {
  for_each_layout([](const Group& group, bool by_rows) {
    const Case whole(group.world().device());
    const bool is_wrong = group.rank() == group.size() - 1;
    auto linear = linear_of(columns_of(whole.weight, group), is_wrong ? whole.scale * 4096 : whole.scale);
    const Parameter& weight = linear->weight;
    const LayerEnd output(by_rows ? Conjugate::scatter_rows : Conjugate::reduce, group, 0);
    RowParallelLinear layer(std::move(linear), LayerEnd(Conjugate::none, group, 0), output);
    const Results found = run(layer, weight, columns_of(whole.x, group), by_rows ? rows_of(whole.dy, group) : whole.dy);
    EXPECT_GT(distance(found.y, by_rows ? rows_of(whole.serial.y, group) : whole.serial.y), 10 * order_of_sums);
  });
}

// Every rank owns other largest elements, over two dimensions where there are ranks for it.
TEST(WeightScales, AreOfWholeWeightsOnAllRanks) {
  World world({.device = make_cpu_device()}, collectives::ours());
  const bool is_sharded = world.size() > 2;
  const Mesh mesh(world, {{"dp_replicate", 1}, {"dp_shard", is_sharded ? 2 : 1}, {"tp", 0}});
  const LlamaConfig config{.dim = 32, .layers = 1, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = 64};
  const auto model = make_llama(config);
  Plan plan = llama_plan(config, /*sequence_parallel=*/true, /*loss_parallel=*/true);
  plan.f8_linears = "layers.*";
  const auto parallel = parallelize(*model, mesh["tp"], plan);
  TrainOptions options;
  ShardingPolicy policy{.stage = is_sharded ? 3 : 0};
  policy.settle_types(options);
  const Parallelism with_scales = with_weight_scales(divide(*model, mesh, policy, options), *model, "layers.*", mesh);
  materialize(*model, world.device(), {}, 1);

  const auto expect_scales = [&](const std::function<void()>& share) {
    std::vector<float> largest;
    for (const Parameter* parameter : parameters_of(*model)) {
      const Tensor& own = parameter->owned.value;
      if (own.size() > 0)
        own.data<float>()[0] = std::exp2(static_cast<float>(world.rank())) * (1 + ops::absolute_max(own));
      const auto all = control::all_gather(world.group(), ops::absolute_max(own));
      largest.push_back(*std::max_element(all.begin(), all.end()));
    }
    share();
    size_t i = 0;
    for (const Parameter* parameter : parameters_of(*model)) {
      const bool is_weight = parameter->shape.size() == 2 && parameter->name.starts_with("layers.");
      EXPECT_EQ(parameter->f8_scale, is_weight ? f8_scale(largest[i], Dtype::f8_e4m3) : 0) << parameter->name;
      ++i;
    }
  };
  expect_scales(with_scales.before_training);
  expect_scales(with_scales.after_update);
}

TEST(F8Linear, WhatIsNotFiniteOnOneRankIsRefusedOnAll) {
  World world({.device = make_cpu_device()}, collectives::ours());
  const Mesh mesh(world, {{"tp", 0}});
  const Tensor x = Tensor::zeros(world.device(), {4}, Dtype::f32);
  if (mesh["tp"].rank() == mesh["tp"].size() - 1) x.data<float>()[2] = -std::nanf("");
  EXPECT_THROW(round_to_f8(x, Dtype::f8_e4m3, largest_over(mesh["tp"])), UserError);
}

}  // namespace
}  // namespace ninefold
