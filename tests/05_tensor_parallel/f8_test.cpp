// A linear layer in 8 bits that several ranks share rounds as one rank would.
#include <gtest/gtest.h>

#include <numeric>

#include "01_collectives/collectives.h"
#include "05_tensor_parallel/linear.h"
#include "05_tensor_parallel/pieces.h"
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

TEST(F8Linear, WhatIsNotFiniteOnOneRankIsRefusedOnAll) {
  World world({.device = make_cpu_device()}, collectives::ours());
  const Mesh mesh(world, {{"tp", 0}});
  const Tensor x = Tensor::zeros(world.device(), {4}, Dtype::f32);
  if (mesh["tp"].rank() == mesh["tp"].size() - 1) x.data<float>()[2] = -std::nanf("");
  EXPECT_THROW(round_to_f8(x, Dtype::f8_e4m3, largest_over(mesh["tp"])), UserError);
}

}  // namespace
}  // namespace ninefold
