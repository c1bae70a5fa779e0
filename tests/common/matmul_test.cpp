// Matrix products against f64: every type, transposition and accumulation, odd sizes, any alignment.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/tensor/ops.h"
#include "tests/support/numbers.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

struct Case {
  Dtype in, out;
  bool transpose_a, transpose_b, accumulate;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const std::pair<Dtype, Dtype> types[] = {{Dtype::f32, Dtype::f32},
                                           {Dtype::bf16, Dtype::bf16},
                                           {Dtype::bf16, Dtype::f32},
                                           {Dtype::f16, Dtype::f16},
                                           {Dtype::f16, Dtype::f32}};
  for (const auto& [in, out] : types) {
    for (int bits = 0; bits < 8; ++bits) cases.push_back({in, out, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
  }
  return cases;
}

class Matmul : public testing::TestWithParam<Case> {
 protected:
  Shape a_shape(int64_t m, int64_t k) const { return GetParam().transpose_a ? Shape{k, m} : Shape{m, k}; }
  Shape b_shape(int64_t k, int64_t n) const { return GetParam().transpose_b ? Shape{n, k} : Shape{k, n}; }
  ops::MatmulOptions options() const { return {GetParam().transpose_a, GetParam().transpose_b, GetParam().accumulate}; }

  void compare(int64_t m, int64_t n, int64_t k) {
    const Case& of = GetParam();
    const Tensor a = random_tensor(device_, a_shape(m, k), of.in, 1),
                 b = random_tensor(device_, b_shape(k, n), of.in, 2);
    const Tensor out = random_tensor(device_, {m, n}, of.out, 3);
    std::vector<double> expected = doubles(out);
    if (!of.accumulate) std::fill(expected.begin(), expected.end(), 0.0);
    const std::vector<double> magnitude = add_product(expected, a, b, m, n, k);
    ops::matmul_into(out, a, b, options());
    const std::vector<double> found = doubles(out);
    for (int64_t i = 0; i < m * n; ++i) {
      const double bound = 1e-6 * magnitude[i] + rounding_of(of.out, expected[i]);
      ASSERT_NEAR(found[i], expected[i], bound) << m << " x " << n << " x " << k << ", element " << i;
    }
  }

  // Adds a b to `sum` in double precision; returns the sums of the magnitudes. A row at a time, so that the compiler
  // can add several of its elements at once.
  std::vector<double> add_product(std::vector<double>& sum, const Tensor& a, const Tensor& b, int64_t m, int64_t n,
                                  int64_t k) const {
    const std::vector<double> x = doubles(a), y = doubles(b);
    std::vector<double> magnitude(sum.size()), row(n);
    for (size_t i = 0; i < sum.size(); ++i) magnitude[i] = std::abs(sum[i]);
    for (int64_t l = 0; l < k; ++l) {
      for (int64_t j = 0; j < n; ++j) row[j] = y[GetParam().transpose_b ? j * k + l : l * n + j];
      for (int64_t i = 0; i < m; ++i) {
        const double factor = x[GetParam().transpose_a ? l * m + i : i * k + l];
        double* const sums = &sum[i * n];
        double* const magnitudes = &magnitude[i * n];
        for (int64_t j = 0; j < n; ++j) {
          sums[j] += factor * row[j];
          magnitudes[j] += std::abs(factor * row[j]);
        }
      }
    }
    return magnitude;
  }

  DeviceHandle device_ = make_test_device();
};

TEST_P(Matmul, AgreesWithDoublePrecision) {
  for (const int64_t m : {1, 17, 129}) {
    for (const int64_t n : {1, 17, 129}) {
      for (const int64_t k : {1, 17, 129}) compare(m, n, k);
    }
  }
  if (test_device_is_slow()) return;
  compare(256, 704, 320);
  compare(400, 530, 64);
}

TEST_P(Matmul, AcceptsEmptyOperands) {
  compare(0, 5, 3);
  compare(5, 0, 3);
  compare(5, 3, 0);
}

TEST_P(Matmul, GivesTheSameBitsAtAnyAlignment) {
  if (test_device_is_gpu()) GTEST_SKIP() << "cuBLASLt chooses by alignment";
  const int64_t m = 37, n = 65, k = 50;
  const Case& of = GetParam();
  const Tensor a = random_tensor(device_, a_shape(m, k), of.in, 1), b = random_tensor(device_, b_shape(k, n), of.in, 2);
  const Tensor start = random_tensor(device_, {m, n}, of.out, 3), expected = shifted(start, 0);
  ops::matmul_into(expected, a, b, options());
  for (const int64_t by : test_shifts()) {
    const Tensor out = shifted(start, by);
    ops::matmul_into(out, shifted(a, by), shifted(b, by), options());
    EXPECT_TRUE(same_bits(out, expected)) << "shifted by " << by;
  }
}

TEST_P(Matmul, BooksScratchMemoryAsWorkspaceOnly) {
  const Case& of = GetParam();
  const Tensor a = random_tensor(device_, a_shape(64, 200), of.in, 1);
  const Tensor b = random_tensor(device_, b_shape(200, 48), of.in, 2);
  const Tensor out = random_tensor(device_, {64, 48}, of.out, 3);
  device_->ledger().reset_peaks();
  const int64_t before = device_->ledger().now(MemoryKind::activations);
  ops::matmul_into(out, a, b, options());
  EXPECT_EQ(device_->ledger().peak(MemoryKind::activations), before);
  EXPECT_EQ(device_->ledger().now(MemoryKind::workspace), 0);
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  const Case& of = info.param;
  return std::string(name_of(of.in)) + "_to_" + std::string(name_of(of.out)) + (of.transpose_a ? "_T" : "_N") +
         (of.transpose_b ? "T" : "N") + (of.accumulate ? "_accumulate" : "");
}
INSTANTIATE_TEST_SUITE_P(All, Matmul, testing::ValuesIn(all_cases()), name_of_case);

// ---- of 8-bit floats
// --------------------------------------------------------------------------------------------------

class MatmulF8 : public Matmul {
 protected:
  // a has the case's type, b that of the weights and activations.
  void compare_f8(int64_t m, int64_t n, int64_t k) {
    const Case& of = GetParam();
    const float a_scale = 0x1p-6f, b_scale = 0x1p-9f;
    const Tensor a = ops::quantize(random_tensor(device_, a_shape(m, k), Dtype::f32, 1), a_scale, of.in);
    const Tensor b = ops::quantize(random_tensor(device_, b_shape(k, n), Dtype::f32, 2), b_scale, Dtype::f8_e4m3);
    const Tensor out = random_tensor(device_, {m, n}, of.out, 3);
    std::vector<double> expected = doubles(out);
    if (!of.accumulate) std::fill(expected.begin(), expected.end(), 0.0);
    const std::vector<double> magnitude = add_product(expected, ops::dequantize(a, a_scale, Dtype::f32),
                                                      ops::dequantize(b, b_scale, Dtype::f32), m, n, k);
    ops::matmul_f8_into(out, a, a_scale, b, b_scale, options());
    const std::vector<double> found = doubles(out);
    const double each =
        test_device_is_gpu() ? 0x1p-10 : 1e-6;  // tensor cores add 8-bit floats with fewer bits than f32
    for (int64_t i = 0; i < m * n; ++i) {
      const double bound = each * magnitude[i] + rounding_of(of.out, expected[i]);
      ASSERT_NEAR(found[i], expected[i], bound) << m << " x " << n << " x " << k << ", element " << i;
    }
  }
};

TEST_P(MatmulF8, AgreesWithDoublePrecision) {
  compare_f8(16, 32, 48);
  compare_f8(144, 16, 80);
  for (const int64_t m : {1, 17, 129}) compare_f8(m, 33, 16);
  compare_f8(16, 16, 50);
  compare_f8(0, 16, 16);
  compare_f8(16, 16, 0);
}

// Extents of 16 and whole words are a GPU's own; the rest is emulated.
TEST_P(MatmulF8, TakesTheDevicesOwnProductWhereItFits) {
  std::vector<std::string> names;
  device_->after_kernel = [&](const KernelCost& cost) {
    if (std::string(cost.name).starts_with("matmul")) names.emplace_back(cost.name);
  };
  compare_f8(32, 16, 64);
  compare_f8(32, 16, 65);
  device_->after_kernel = nullptr;
  if (test_device_is_gpu()) GTEST_SKIP() << "older GPUs have none";
  const std::string own = device_->type() == DeviceType::cuda ? "matmul_f8" : "matmul";
  EXPECT_EQ(names, (std::vector<std::string>{own, "matmul"}));
}

std::vector<Case> f8_cases() {
  std::vector<Case> cases;
  for (const Dtype in : {Dtype::f8_e4m3, Dtype::f8_e5m2}) {
    for (const Dtype out : {Dtype::f32, Dtype::bf16}) {
      for (int bits = 0; bits < 8; ++bits) {
        cases.push_back({in, out, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0});
      }
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(All, MatmulF8, testing::ValuesIn(f8_cases()), name_of_case);

// One device, as in a model: a product that accumulates leaves no trace in those of other shapes.
TEST(MatmulCache, AccumulatingOnceChangesNoOtherProduct) {
  const DeviceHandle device = make_test_device();
  for (const int64_t size : {8, 12, 16}) {
    for (const bool accumulate : {false, true}) {
      const Tensor a = Tensor::empty(device, {size, size}, Dtype::f32),
                   out = Tensor::empty(device, a.shape(), Dtype::f32);
      ops::fill_(a, 1);
      ops::fill_(out, 100);
      ops::matmul_into(out, a, a, {.accumulate = accumulate});
      for (const double value : doubles(out)) ASSERT_EQ(value, static_cast<double>(size) + (accumulate ? 100 : 0));
    }
  }
}

}  // namespace
}  // namespace ninefold
