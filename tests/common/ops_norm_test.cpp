// RMSNorm, rotary positions and the embedding against f64; their gradients against finite differences in f64.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/compare.h"
#include "tests/support/exact_data.h"
#include "tests/support/safetensors.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

constexpr float eps = 1e-5f;

class Norm : public testing::TestWithParam<std::tuple<Dtype, int64_t>> {
 protected:
  Dtype dtype() const { return std::get<0>(GetParam()); }
  int64_t features() const { return std::get<1>(GetParam()); }
  Tensor random(const Shape& shape, uint32_t seed) const { return random_tensor(device_, shape, dtype(), seed); }

  std::vector<double> reference(const std::vector<double>& x, const std::vector<double>& weight) const {
    std::vector<double> y;
    const auto width = static_cast<size_t>(features());
    for (size_t row = 0; row < x.size() / width; ++row) {
      double squares = 0;
      for (size_t i = 0; i < width; ++i) squares += x[row * width + i] * x[row * width + i];
      const double deviation = std::sqrt(squares / static_cast<double>(width) + eps);
      for (size_t i = 0; i < width; ++i) y.push_back(x[row * width + i] / deviation * weight[i]);
    }
    return y;
  }

  static constexpr int64_t rows = 3;
  DeviceHandle device_ = make_test_device();
};

TEST_P(Norm, Forward) {
  const Tensor x = random({rows, features()}, 1), weight = random({features()}, 2);
  const ops::RmsNorm plain = ops::rms_norm(x, {}, weight, eps);
  EXPECT_FALSE(plain.sum.defined());
  expect_near(plain.y, reference(doubles(x), doubles(weight)));
}

TEST_P(Norm, ForwardWithResidual) {
  const Tensor x = random({rows, features()}, 1), residual = random({rows, features()}, 3),
               weight = random({features()}, 2);
  const ops::RmsNorm fused = ops::rms_norm(x, residual, weight, eps);
  EXPECT_TRUE(same_bits(fused.sum, ops::add(x, residual)));
  EXPECT_TRUE(same_bits(fused.y, ops::rms_norm(fused.sum, {}, weight, eps).y));
}

TEST_P(Norm, Backward) {
  const Tensor x = random({rows, features()}, 1), weight = random({features()}, 2), dy = random({rows, features()}, 3);
  const Tensor inverse_deviation = ops::rms_norm(x, {}, weight, eps).inverse_deviation;
  const std::vector<double> values = doubles(x), weights = doubles(weight), gradient = doubles(dy);
  const std::vector<double> expected_dweight =
      numerical_gradient(weights, [&](const auto& w) { return dot(gradient, reference(values, w)); });
  for (const Dtype gradient_type : {dtype(), Dtype::f32}) {
    const Tensor dweight = random_tensor(device_, {features()}, gradient_type, 4);
    std::vector<double> sums = doubles(dweight);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += expected_dweight[i];
    const Tensor dx = ops::rms_norm_backward(dy, x, {}, weight, inverse_deviation, {}, dweight);
    expect_near(dx, numerical_gradient(values, [&](const auto& v) { return dot(gradient, reference(v, weights)); }),
                2e-6);
    expect_near(dweight, sums, 2e-6);
  }
}

TEST_P(Norm, BackwardWithResidualAndWhatFlowsPast) {
  const Tensor x = random({rows, features()}, 1), residual = random({rows, features()}, 5),
               weight = random({features()}, 2);
  const Tensor dy = random({rows, features()}, 3), dsum = random({rows, features()}, 6);
  const ops::RmsNorm forward = ops::rms_norm(x, residual, weight, eps);
  const Tensor dweight = Tensor::zeros(device_, {features()}, Dtype::f32);
  const Tensor plain_dweight = Tensor::zeros(device_, {features()}, Dtype::f32);
  const Tensor dx = ops::rms_norm_backward(dy, x, residual, weight, forward.inverse_deviation, dsum, dweight);
  const Tensor plain =
      ops::rms_norm_backward(dy, forward.sum, {}, weight, forward.inverse_deviation, {}, plain_dweight);
  EXPECT_TRUE(same_bits(dweight, plain_dweight));
  std::vector<double> expected = doubles(plain);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += doubles(dsum)[i];
  expect_near(dx, expected, 1e-6 + 2.5 * rounding_of(dtype()));
}

INSTANTIATE_TEST_SUITE_P(Sizes, Norm, testing::Combine(testing::ValuesIn(float_types), testing::Values(1, 17, 129)));

TEST(Norm, OfNoRows) {
  const DeviceHandle device = make_test_device();
  const Tensor x = Tensor::empty(device, {0, 8}, Dtype::f32), weight = Tensor::zeros(device, {8}, Dtype::f32);
  const ops::RmsNorm norm = ops::rms_norm(x, x, weight, eps);
  EXPECT_EQ(norm.y.size(), 0);
  EXPECT_EQ(ops::rms_norm_backward(x, x, x, weight, norm.inverse_deviation, x, weight).size(), 0);
  EXPECT_EQ(doubles(weight), std::vector<double>(8, 0.0));
}

// [1, heads, time, width] as the operation wants it: [time, heads * width].
Tensor rows_of_heads(const DeviceHandle& device, const GoldenTensor& golden) {
  const int64_t heads = golden.shape[1], time = golden.shape[2], width = golden.shape[3];
  std::vector<float> values;
  for (int64_t t = 0; t < time; ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      const auto from = golden.floats.begin() + (head * time + t) * width;
      values.insert(values.end(), from, from + width);
    }
  }
  return Tensor::from(device, {time, heads * width}, values);
}

TEST(Rope, GoldenValues) {
  const DeviceHandle device = make_test_device();
  const GoldenFile golden = read_safetensors(NINEFOLD_TEST_DATA "/rope.safetensors");
  const Tensor x = rows_of_heads(device, golden["x"]);
  ops::rope_(x, golden["positions"].on(device),
             ops::rope_frequencies(golden["x"].shape[3], std::stod(golden.metadata.at("theta"))),
             ops::RopeDirection::forward);
  // x reaches 3: half a unit each for sine, cosine, products, their sum, and the golden value.
  expect_near(x, doubles(rows_of_heads(device, golden["y"])), 4e-7);
}

// positions up to 10^6, several sequences and heads.
void compare_rope(Dtype dtype, int64_t head_dim) {
  const DeviceHandle device = make_test_device();
  const double theta = 500000.0;
  const std::vector<int32_t> positions = {0, 1, 77, 131072, 999'999, 1'000'000};
  const auto length = static_cast<int64_t>(positions.size()), heads = int64_t{3}, rows = 2 * length;
  const Tensor x = random_tensor(device, {rows, heads * head_dim}, dtype, 1);
  const std::vector<double> before = doubles(x);
  std::vector<double> expected(before.size());
  for (int64_t i = 0; i < x.size(); ++i) {
    const int64_t column = i % head_dim, pair = column % (head_dim / 2), first = i - column + pair;
    const double angle = positions[i / (heads * head_dim) % length] * std::pow(theta, -2.0 * pair / head_dim);
    const double a = before[first], b = before[first + head_dim / 2];
    expected[i] =
        column == pair ? a * std::cos(angle) - b * std::sin(angle) : b * std::cos(angle) + a * std::sin(angle);
  }
  const Tensor at = Tensor::from(device, {length}, positions);
  ops::rope_(x, at, ops::rope_frequencies(head_dim, theta), ops::RopeDirection::forward);
  expect_near(x, expected, 2e-7);
  ops::rope_(x, at, ops::rope_frequencies(head_dim, theta), ops::RopeDirection::backward);
  expect_near(x, before, 1e-6 + 2.5 * rounding_of(dtype));
}

TEST(Rope, LongPositionsManyHeadsAndBack) {
  for (const Dtype dtype : float_types) {
    for (const int64_t head_dim : {2, 8, 34, 64}) compare_rope(dtype, head_dim);
  }
}

TEST(Rope, OfNothing) {
  const DeviceHandle device = make_test_device();
  const Tensor x = Tensor::empty(device, {0, 8}, Dtype::f32), positions = Tensor::empty(device, {0}, Dtype::i32);
  ops::rope_(x, positions, ops::rope_frequencies(4, 10000.0), ops::RopeDirection::forward);
  EXPECT_THROW(ops::rope_(x, positions, ops::rope_frequencies(6, 10000.0), ops::RopeDirection::forward), Error);
  EXPECT_THROW(ops::rope_frequencies(3, 10000.0), Error);
}

TEST(Embedding, LooksUpAndAddsBack) {
  const DeviceHandle device = make_test_device();
  const std::vector<int32_t> ids = {3, 0, 3, 6, 3};
  const Tensor tokens = Tensor::from(device, {5}, ids);
  for (const auto& [dtype, gradient_type] :
       {std::pair(Dtype::f32, Dtype::f32), std::pair(Dtype::bf16, Dtype::f32), std::pair(Dtype::bf16, Dtype::bf16),
        std::pair(Dtype::f16, Dtype::f32), std::pair(Dtype::f16, Dtype::f16)}) {
    for (const int64_t features : {0, 1, 17, 129}) {
      const Tensor table = random_tensor(device, {7, features}, dtype, 1);
      const Tensor dy = random_tensor(device, {5, features}, dtype, 2);
      const Tensor dtable = random_tensor(device, {7, features}, gradient_type, 3);
      const Tensor out = ops::embedding(tokens, table);
      const std::vector<double> rows = doubles(dy);
      std::vector<double> expected = doubles(dtable);
      for (int64_t row = 0; row < 5; ++row) {
        EXPECT_TRUE(same_bits(out.rows(row, row + 1), table.rows(ids[row], ids[row] + 1)));
        for (int64_t i = 0; i < features; ++i) expected[ids[row] * features + i] += rows[row * features + i];
      }
      ops::embedding_backward(dtable, tokens, dy);
      expect_near(dtable, expected);
    }
  }
}

// More tokens, and more features, than a block of a GPU has threads.
TEST(Embedding, AddsBackManyTokens) {
  const DeviceHandle device = make_test_device();
  const int64_t tokens = 600, features = 270, vocabulary = 5;
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * i % vocabulary);
  const Tensor dy = tensor_of(device, Dtype::bf16, contribution(0, tokens * features), {tokens, features});
  const Tensor dtable = Tensor::zeros(device, {vocabulary, features}, Dtype::f32);
  ops::embedding_backward(dtable, Tensor::from(device, {tokens}, ids), dy);
  std::vector<double> expected(static_cast<size_t>(vocabulary * features));
  for (int64_t i = 0; i < tokens * features; ++i)
    expected[ids[static_cast<size_t>(i / features)] * features + i % features] += element(0, i);
  expect_near(dtable, expected, 0);
}

// Of a table cut by rows, the last part padded, each token is found in one part.
TEST(Embedding, PartsOfATableMakeTheWhole) {
  const DeviceHandle device = make_test_device();
  const Tensor tokens = Tensor::from<int32_t>(device, {5}, {3, 0, 3, 6, 3});
  const Tensor table = random_tensor(device, {7, 17}, Dtype::f32, 1),
               dy = random_tensor(device, {5, 17}, Dtype::f32, 2);
  const Tensor out = Tensor::zeros(device, {5, 17}, Dtype::f32), dtable = Tensor::zeros(device, {7, 17}, Dtype::f32);
  ops::embedding_backward(dtable, tokens, dy);
  for (const int64_t first : {0, 3, 6}) {
    const ops::VocabularyPart held{first, std::min<int64_t>(3, 7 - first)};
    const Tensor rows = random_tensor(device, {3, 17}, Dtype::f32, 3),
                 drows = Tensor::zeros(device, {3, 17}, Dtype::f32);
    ops::copy_(rows.rows(0, held.count), table.rows(first, first + held.count));
    ops::add_(out, ops::embedding(tokens, rows, held));
    ops::embedding_backward(drows, tokens, dy, held);
    EXPECT_TRUE(same_bits(drows.rows(0, held.count), dtable.rows(first, first + held.count)));
    EXPECT_EQ(doubles(drows.rows(held.count, 3)), std::vector<double>(static_cast<size_t>((3 - held.count) * 17), 0.0));
  }
  EXPECT_TRUE(same_bits(out, ops::embedding(tokens, table)));
}

TEST(Embedding, RoundsATokensSumOnce) {
  const DeviceHandle device = make_test_device();
  const int64_t n = 4096;  // adding 1 to 256 in bf16 gives 256
  const Tensor tokens = Tensor::from(device, {n}, std::vector<int32_t>(n, 1));
  const Tensor dy = Tensor::empty(device, {n, 3}, Dtype::bf16), dtable = Tensor::zeros(device, {2, 3}, Dtype::bf16);
  ops::fill_(dy, 1.0f);
  ops::embedding_backward(dtable, tokens, dy);
  EXPECT_EQ(doubles(dtable), (std::vector<double>{0, 0, 0, 4096, 4096, 4096}));
}

TEST(Embedding, RefusesTokensOutsideTheVocabulary) {
  const DeviceHandle device = make_test_device();
  const Tensor table = Tensor::zeros(device, {7, 4}, Dtype::f32);
  for (const int32_t token : {7, -1}) {
    const auto look_up = [&] { return ops::embedding(Tensor::from<int32_t>(device, {1}, {token}), table); };
    EXPECT_THROW(look_up().to_vector<float>(), Error) << "told at the latest when somebody wants to know";
  }
  EXPECT_EQ(ops::embedding(Tensor::empty(device, {0}, Dtype::i32), table).shape(), (Shape{0, 4}));
}

}  // namespace
}  // namespace ninefold
