// Products of ragged groups of rows, and the weighted sums of their results, against plain loops in f64.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

using Counts = std::vector<int64_t>;

// Even, ragged, with empty groups at either end and in the middle, all in one, none at all.
const std::vector<Counts> divisions = {{4, 4, 4}, {1, 17, 3, 130}, {0, 5, 0, 2, 0}, {0, 0, 9, 0}, {0, 0, 0}, {300}};

int64_t total(const Counts& counts) { return std::accumulate(counts.begin(), counts.end(), int64_t{0}); }

struct Types {
  Dtype in, out;
};
class GroupedMatmul : public testing::TestWithParam<Types> {
 protected:
  Tensor random(const Shape& shape, uint32_t seed) const { return random_tensor(device_, shape, GetParam().in, seed); }
  DeviceHandle device_ = make_test_device();
};
INSTANTIATE_TEST_SUITE_P(Types, GroupedMatmul,
                         testing::Values(Types{Dtype::f32, Dtype::f32}, Types{Dtype::bf16, Dtype::bf16},
                                         Types{Dtype::bf16, Dtype::f32}, Types{Dtype::f16, Dtype::f16}),
                         [](const auto& info) {
                           return fmt::format("{}_to_{}", name_of(info.param.in), name_of(info.param.out));
                         });

TEST_P(GroupedMatmul, MultipliesEachRowByItsGroupsMatrix) {
  const int64_t k = 37, n = 50;
  for (const Counts& counts : divisions) {
    for (const bool transposed : {false, true}) {
      for (const bool accumulate : {false, true}) {
        const auto groups = static_cast<int64_t>(counts.size());
        const Tensor a = random({total(counts), k}, 1);
        const Tensor b = random(transposed ? Shape{groups, n, k} : Shape{groups, k, n}, 2);
        const Tensor out = random_tensor(device_, {total(counts), n}, GetParam().out, 3);
        const auto x = doubles(a), y = doubles(b);
        auto expected = doubles(out);
        size_t row = 0;
        for (int64_t g = 0; g < groups; ++g) {
          for (int64_t r = 0; r < counts[static_cast<size_t>(g)]; ++r, ++row) {
            for (int64_t j = 0; j < n; ++j) {
              double sum = accumulate ? expected[row * n + j] : 0;
              for (int64_t i = 0; i < k; ++i) {
                sum += x[row * k + i] * y[static_cast<size_t>(g * k * n + (transposed ? j * k + i : i * n + j))];
              }
              expected[row * n + j] = sum;
            }
          }
        }
        ops::grouped_matmul_into(out, a, b, counts, {.transpose_b = transposed, .accumulate = accumulate});
        expect_near(out, expected, 1e-5);
      }
    }
  }
}

TEST_P(GroupedMatmul, GivesEachMatrixTheGradientOfItsRows) {
  const int64_t m = 23, n = 50;
  for (const Counts& counts : divisions) {
    for (const bool accumulate : {false, true}) {
      const auto groups = static_cast<int64_t>(counts.size());
      const Tensor dy = random({total(counts), m}, 1), x = random({total(counts), n}, 2);
      const Tensor out = random_tensor(device_, {groups, m, n}, GetParam().out, 3);
      const auto left = doubles(dy), right = doubles(x);
      auto expected = doubles(out);
      int64_t first = 0;
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t end = first + counts[static_cast<size_t>(g)];
        for (int64_t i = 0; i < m * n; ++i) {
          double& sum = expected[static_cast<size_t>(g * m * n + i)];
          if (!accumulate) sum = 0;
          for (int64_t r = first; r < end; ++r) {
            sum += left[static_cast<size_t>(r * m + i / n)] * right[static_cast<size_t>(r * n + i % n)];
          }
        }
        first = end;
      }
      ops::grouped_matmul_into(out, dy, x, counts, {.transpose_a = true, .accumulate = accumulate});
      expect_near(out, expected, 2e-5);
    }
  }
}

// Numbers of rows change every step: what is kept for each shape would never stop growing.
TEST(GroupedMatmulMemory, DoesNotGrowWithTheNumbersThatCome) {
  const DeviceHandle device = make_test_device();
  const Tensor w = random_tensor(device, {2, 16, 8}, Dtype::f32, 1);
  for (int64_t rows = 1; rows < 40; ++rows) {
    const Tensor x = random_tensor(device, {2 * rows + 1, 8}, Dtype::f32, 2);
    const Tensor y = ops::grouped_matmul(x, w, {rows, rows + 1}, {.transpose_b = true});
    const Tensor expected = ops::matmul(x.rows(rows, 2 * rows + 1), w.slice(128, {16, 8}), {.transpose_b = true});
    expect_near(y.rows(rows, 2 * rows + 1), doubles(expected));
  }
}

TEST(GroupedMatmulErrors, NameWhatDoesNotFit) {
  const DeviceHandle device = make_test_device();
  const Tensor x = Tensor::zeros(device, {5, 8}, Dtype::f32), w = Tensor::zeros(device, {2, 8, 3}, Dtype::f32);
  EXPECT_THROW(ops::grouped_matmul(x, w, {2, 2}), Error);     // of 5 rows
  EXPECT_THROW(ops::grouped_matmul(x, w, {2, 2, 1}), Error);  // two matrices
  EXPECT_THROW(ops::grouped_matmul(x, w, {2, 3}, {.transpose_b = true}), Error);
}

TEST(GatherRows, TakesRowsInAnyOrder) {
  const DeviceHandle device = make_test_device();
  for (const Dtype dtype : float_types) {
    const Tensor x = random_tensor(device, {3, 5}, dtype, 1);
    const Tensor y = ops::gather_rows(x, Tensor::from<int32_t>(device, {4}, {2, 0, 2, 1}));
    for (const auto& [to, from] : {std::pair{0, 2}, {1, 0}, {2, 2}, {3, 1}}) {
      EXPECT_TRUE(same_bits(y.rows(to, to + 1), x.rows(from, from + 1)));
    }
  }
}

// Two choices a token; one was dropped.
TEST(WeightedRows, AddUpAndHaveTheirDerivative) {
  const DeviceHandle device = make_test_device();
  const std::vector<int32_t> index = {4, 0, 1, -1, 2, 3};
  const int64_t features = 19;
  for (const Dtype dtype : float_types) {
    const Tensor rows = random_tensor(device, {5, features}, dtype, 1),
                 sum = random_tensor(device, {3, features}, dtype, 2);
    const Tensor weights = random_tensor(device, {3, 2}, Dtype::f32, 3),
                 dy = random_tensor(device, {3, features}, dtype, 4);
    const Tensor indices = Tensor::from(device, {3, 2}, index);
    const auto r = doubles(rows), w = doubles(weights), d = doubles(dy);
    auto expected = doubles(sum);
    std::vector<double> drows(r.size(), 0), dweights(6, 0);
    for (size_t choice = 0; choice < 6; ++choice) {
      if (index[choice] < 0) continue;
      for (size_t i = 0; i < static_cast<size_t>(features); ++i) {
        const size_t row = static_cast<size_t>(index[choice] * features) + i, token = choice / 2 * features + i;
        expected[token] += w[choice] * r[row];
        drows[row] += w[choice] * d[token];
        dweights[choice] += r[row] * d[token];
      }
    }
    ops::add_weighted_rows(sum, rows, indices, weights);
    expect_near(sum, expected);
    const auto gradients = ops::weighted_rows_backward(dy, rows, indices, weights);
    expect_near(gradients.drows, drows);
    expect_near(gradients.dweights, dweights);
  }
}

}  // namespace
}  // namespace ninefold
