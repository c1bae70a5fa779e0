// Linear layers that multiply in 8 bits: scales, rounding, and which layers do it.
#include <gtest/gtest.h>

#include <cmath>

#include "common/nn/f8_linears.h"
#include "common/nn/linear.h"
#include "common/nn/llama.h"
#include "common/nn/replace.h"
#include "tests/support/numbers.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

TEST(F8Scale, IsTheSmallestPowerOfTwoThatFits) {
  for (const Dtype dtype : {Dtype::f8_e4m3, Dtype::f8_e5m2}) {
    const float limit = dtype == Dtype::f8_e4m3 ? 448 : 57344;
    EXPECT_EQ(f8_scale(limit, dtype), 1);
    EXPECT_EQ(f8_scale(std::nextafter(limit, 1e9f), dtype), 2);
    EXPECT_EQ(f8_scale(limit / 2, dtype), 0.5f);
    EXPECT_EQ(f8_scale(0, dtype), 1);
    for (const float largest : {1e-45f, 1e-30f, 0.3f, 7.0f, 3e38f}) {
      const float scale = f8_scale(largest, dtype);
      EXPECT_EQ(scale, std::exp2(std::round(std::log2(scale))));
      EXPECT_LE(largest / scale, limit);
      EXPECT_TRUE(largest / scale > limit / 2 || scale == 0x1p-126f) << largest;
    }
    EXPECT_THROW(f8_scale(std::nanf(""), dtype), UserError);
    EXPECT_THROW(f8_scale(INFINITY, dtype), UserError);
  }
}

// In double precision, with the numbers of `digits` bits nearest to x, which are normal here.
std::vector<double> rounded(const std::vector<double>& x, int digits) {
  std::vector<double> result;
  for (const double value : x) {
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);
    result.push_back(std::ldexp(std::nearbyint(std::ldexp(fraction, digits)), exponent - digits));
  }
  return result;
}

// Away from zero, so that no element is below the smallest normal number: |x| in [1/2, 1).
Tensor of_one_size(const DeviceHandle& device, const Shape& shape, uint32_t seed) {
  const Tensor x = random_tensor(device, shape, Dtype::f32, seed);
  for (int64_t i = 0; i < x.size(); ++i) x.data<float>()[i] = x.data<float>()[i] / 2 + (i % 3 == 0 ? -1.0f : 1.0f);
  return x;
}

double product(const std::vector<double>& a, int64_t row, const std::vector<double>& b, int64_t column, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += a[row * k + i] * b[column * k + i];
  return sum;
}

std::vector<double> transposed(const std::vector<double>& x, int64_t rows) {
  const int64_t columns = static_cast<int64_t>(x.size()) / rows;
  std::vector<double> result(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < columns; ++k) result[k * rows + i] = x[i * columns + k];
  }
  return result;
}

// found [m, n] = a [m, k] · b [n, k]ᵀ
void expect_product(const Tensor& found, const std::vector<double>& a, const std::vector<double>& b, int64_t k) {
  const std::vector<double> values = doubles(found);
  for (int64_t i = 0; i < found.size(); ++i) {
    const int64_t row = i / found.dim(1), column = i % found.dim(1);
    EXPECT_NEAR(values[i], product(a, row, b, column, k), 2e-6 * static_cast<double>(k));
  }
}

// e4m3 has 4 digits with the first, e5m2 has 3.
TEST(LinearInF8, MultipliesRoundedOperands) {
  const DeviceHandle device = make_cpu_device();
  const int64_t rows = 5, in = 7, out = 6;
  Linear linear(in, out, {});
  materialize(linear, device, {}, 1);
  ops::copy_(linear.weight.value, of_one_size(device, {out, in}, 1));
  linear.in_f8 = true;
  linear.weight.zero_gradient();
  const Tensor x = of_one_size(device, {rows, in}, 2), dy = of_one_size(device, {rows, out}, 3);
  Saved saved((Step()));
  const Tensor y = linear.forward(x, saved), dx = linear.backward(dy, saved);
  EXPECT_TRUE(saved.empty());

  const auto x4 = rounded(doubles(x), 4), w4 = rounded(doubles(linear.weight.value), 4), dy3 = rounded(doubles(dy), 3);
  EXPECT_NE(x4, doubles(x));
  expect_product(y, x4, w4, in);
  expect_product(dx, dy3, transposed(w4, out), out);
  expect_product(linear.weight.gradient, transposed(dy3, rows), transposed(x4, rows), rows);
}

TEST(LinearInF8, KeepsAByteAnElement) {
  const DeviceHandle device = make_cpu_device();
  Linear linear(64, 2, {});
  materialize(linear, device, {}, 1);
  const auto kept = [&](bool in_f8) {
    linear.in_f8 = in_f8;
    Saved saved((Step()));
    const int64_t before = device->ledger().now(MemoryKind::activations);
    linear.forward(Tensor::zeros(device, {16, 64}, Dtype::f32), saved);
    const int64_t bytes = device->ledger().now(MemoryKind::activations) - before;
    in_f8 ? void(pop_operand(saved)) : void(saved.pop());
    return bytes;
  };
  EXPECT_EQ(kept(false), 16 * 64 * 4);
  EXPECT_EQ(kept(true), 16 * 64 + 4);
}

TEST(F8Linears, AreThoseBelowThePattern) {
  const auto chosen = [](const std::string& pattern) {
    const auto model = make_llama({.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2, .ffn = 48, .vocab = 250});
    multiply_in_f8(*model, pattern);
    std::vector<std::string> paths;
    for_each_layer(*model, [&](const std::string& path, Layer& layer) {
      const auto* linear = dynamic_cast<Linear*>(&layer);
      if (linear && linear->in_f8) paths.push_back(path);
    });
    return paths;
  };
  EXPECT_EQ(chosen("layers.*").size(), 2 * 7);
  EXPECT_EQ(chosen("").size(), 0);
  EXPECT_EQ(
      chosen("layers.1.feed_forward"),
      (std::vector<std::string>{"layers.1.feed_forward.w1", "layers.1.feed_forward.w3", "layers.1.feed_forward.w2"}));
  EXPECT_EQ(chosen("layers.*.attention.wo").size(), 2);
  EXPECT_EQ(sentence_of([&] { chosen("*"); }),
            "f8 layers * take in output, whose scores the loss is made of; name layers of the blocks, as layers.*");
  EXPECT_EQ(sentence_of([&] { chosen("norm"); }),
            "f8 layers norm are no linear layers and have none below them; name some, as layers.*.feed_forward");
}

}  // namespace
}  // namespace ninefold
