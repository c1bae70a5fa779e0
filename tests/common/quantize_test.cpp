// The 8-bit floats as tensors: quantised with a scale and back, moved, and refused everywhere else.
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
const int64_t sizes[] = {0, 1, 17, 129, 1000};

class Quantize : public testing::TestWithParam<Dtype> {
 protected:
  Dtype wide() const { return GetParam(); }
  template <typename F8>
  void expect_each_rounded(int64_t n, float scale) const {
    const Tensor x = random_tensor(device_, {n}, wide(), 1);
    const Tensor q = ops::quantize(x, scale, DtypeOf<F8>::value);
    ASSERT_EQ(q.shape(), x.shape());
    ASSERT_EQ(q.bytes(), n);
    const std::vector<float> values = ops::cast(x, Dtype::f32).to_vector<float>();
    const std::vector<F8> found = q.to_vector<F8>();
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(found[i], F8(values[i] / scale)) << values[i];
    std::vector<float> expected;
    for (const F8 value : found) expected.push_back(static_cast<float>(value) * scale);
    const Tensor back = ops::dequantize(q, scale, wide());
    EXPECT_EQ(back.dtype(), wide());
    EXPECT_TRUE(same_bits(back, ops::cast(Tensor::from(device_, {n}, expected), wide())));
  }

  DeviceHandle device_ = make_test_device();
};

TEST_P(Quantize, RoundsEveryElementOnceEachWay) {
  for (const int64_t n : sizes) {
    for (const float scale : {1.0f, 0.37f, 0.001f, 1000.0f}) {
      expect_each_rounded<f8_e4m3>(n, scale);
      expect_each_rounded<f8_e5m2>(n, scale);
    }
  }
}

// Scaled to the largest number, e4m3 keeps three bits behind the first: an error of at most 1/16, or half a unit of the
// smallest numbers, 2^-9.
TEST_P(Quantize, KeepsFourBits) {
  const Tensor x = random_tensor(device_, {1000}, wide(), 1);
  const float scale = ops::absolute_max(x) / 448;
  const std::vector<double> before = doubles(x);
  const std::vector<double> after =
      doubles(ops::dequantize(ops::quantize(x, scale, Dtype::f8_e4m3), scale, Dtype::f32));
  for (size_t i = 0; i < before.size(); ++i) {
    ASSERT_NEAR(after[i], before[i], std::max(std::abs(before[i]) / 16, 0x1p-10 * scale) * (1 + 1e-6)) << i;
  }
}

TEST_P(Quantize, WhatIsTooLargeOrNotANumber) {
  const Tensor x = ops::cast(Tensor::from<float>(device_, {4}, {60000.0f, -60000.0f, infinity, std::nanf("")}), wide());
  const std::vector<double> e4m3 = doubles(ops::dequantize(ops::quantize(x, 0.5f, Dtype::f8_e4m3), 0.5f, Dtype::f32));
  const std::vector<double> e5m2 = doubles(ops::dequantize(ops::quantize(x, 0.5f, Dtype::f8_e5m2), 0.5f, Dtype::f32));
  EXPECT_EQ((std::vector<double>{e4m3[0], e4m3[1], e4m3[2]}), (std::vector<double>{224, -224, 224}));
  EXPECT_EQ((std::vector<double>{e5m2[0], e5m2[1], e5m2[2]}), (std::vector<double>{infinity, -infinity, infinity}));
  EXPECT_TRUE(std::isnan(e4m3[3]) && std::isnan(e5m2[3]));
}

TEST_P(Quantize, WritesIntoPartsOfLargerTensors) {
  const Tensor x = random_tensor(device_, {40}, wide(), 1);
  const Tensor q = Tensor::zeros(device_, {64}, Dtype::f8_e4m3), back = Tensor::zeros(device_, {64}, wide());
  ops::quantize_(q.slice(3, {40}), x, 0.01f);
  ops::dequantize_(back.slice(7, {40}), q.slice(3, {40}), 0.01f);
  EXPECT_TRUE(same_bits(back.slice(7, {40}), ops::dequantize(ops::quantize(x, 0.01f, q.dtype()), 0.01f, wide())));
  for (const int64_t i : {0, 2, 43, 63}) EXPECT_EQ(q.to_vector<f8_e4m3>()[i].bits, 0) << i;
  for (const int64_t i : {0, 6, 47, 63}) EXPECT_EQ(doubles(back)[i], 0) << i;
}

TEST_P(Quantize, TheLargestMagnitude) {
  for (const int64_t n : sizes) {
    const Tensor x = random_tensor(device_, {n}, wide(), 1);
    double expected = 0;
    for (const double value : doubles(x)) expected = std::max(expected, std::abs(value));
    EXPECT_EQ(ops::absolute_max(x), expected);
    for (int64_t i = 0; i < n; i += 13) {
      const Tensor one = x.slice(i, {1}), kept = ops::cast(one, Dtype::f32);
      ops::fill_(one, -infinity);
      EXPECT_EQ(ops::absolute_max(x), infinity) << i;
      ops::fill_(one, std::nanf(""));
      EXPECT_TRUE(std::isnan(ops::absolute_max(x))) << i;
      ops::copy_(one, kept);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Quantize, testing::ValuesIn(float_types),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(Quantize, RefusesWhatDoesNotFit) {
  const DeviceHandle device = make_test_device();
  const Tensor x = Tensor::zeros(device, {16}, Dtype::f32), q = Tensor::zeros(device, {16}, Dtype::f8_e4m3);
  for (const float scale : {0.0f, -1.0f, infinity, std::nanf("")}) {
    EXPECT_THROW(ops::quantize(x, scale, Dtype::f8_e4m3), Error) << scale;
    EXPECT_THROW(ops::dequantize(q, scale, Dtype::f32), Error) << scale;
  }
  EXPECT_THROW(ops::quantize(x, 1, Dtype::bf16), Error);
  EXPECT_THROW(ops::quantize(q, 1, Dtype::f8_e4m3), Error);
  EXPECT_THROW(ops::dequantize(x, 1, Dtype::f32), Error);
  EXPECT_THROW(ops::quantize_(q.slice(0, {15}), x, 1), Error);
}

TEST(Quantize, EightBitsAreMovedButNotComputedWith) {
  const DeviceHandle device = make_test_device();
  const Tensor q = ops::quantize(random_tensor(device, {16}, Dtype::f32, 1), 0.01f, Dtype::f8_e4m3);
  EXPECT_TRUE(same_bits(ops::cast(q, Dtype::f8_e4m3), q));
  EXPECT_THROW(ops::cast(q, Dtype::f32), Error) << "without a scale";
  EXPECT_THROW(ops::cast(q, Dtype::f8_e5m2), Error);
  EXPECT_THROW(ops::add(q, q), Error);
  EXPECT_THROW(ops::scale_(q, 2), Error);
  EXPECT_THROW(ops::sum(q), Error);
  EXPECT_THROW(ops::matmul(q.reshape({4, 4}), q.reshape({4, 4})), Error);
}

TEST(Quantize, OnPaper) {
  const DeviceHandle device = make_meta_device();
  const Tensor x = Tensor::empty(device, {1000, 1000}, Dtype::bf16);
  const Tensor q = ops::quantize(x, 0.5f, Dtype::f8_e4m3);
  EXPECT_EQ(q.shape(), x.shape());
  EXPECT_EQ(device->ledger().now(MemoryKind::activations), 3'000'000 / 64 * 64);
  EXPECT_EQ(ops::dequantize(q, 0.5f, Dtype::f32).bytes(), 4'000'000);
}

}  // namespace
}  // namespace ninefold
