// Attention against a naive one in f64 and against PyTorch's, for any positions, heads and lengths; blocks of keys
// merged by hand equal the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "common/tensor/ops.h"
#include "tests/support/naive_attention.h"
#include "tests/support/numbers.h"
#include "tests/support/safetensors.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

Indices counting(int64_t count, int32_t first = 0) {
  Indices positions(count);
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

class Attention : public testing::TestWithParam<Dtype> {
 protected:
  AttentionProblem problem(const ops::AttentionShape& shape, const Indices& q_positions,
                           const Indices& k_positions) const {
    const int64_t q_rows = shape.batch * static_cast<int64_t>(q_positions.size());
    const int64_t k_rows = shape.batch * static_cast<int64_t>(k_positions.size());
    const Shape q = {q_rows, shape.heads * shape.head_dim}, k = {k_rows, shape.kv_heads * shape.head_dim};
    return {shape,
            q_positions,
            k_positions,
            random_tensor(device_, q, GetParam(), 1),
            random_tensor(device_, k, GetParam(), 2),
            random_tensor(device_, k, GetParam(), 3),
            random_tensor(device_, q, GetParam(), 4)};
  }

  Tensor positions(const Indices& values) const {
    return Tensor::from(device_, {static_cast<int64_t>(values.size())}, values);
  }
  ops::Attention forward(const AttentionProblem& of) const {
    return ops::attention_block(of.q, positions(of.q_positions), of.k, of.v, positions(of.k_positions), of.shape);
  }
  ops::AttentionGradients backward(const AttentionProblem& of, const ops::Attention& result) const {
    return ops::attention_block_backward(of.dout, of.q, positions(of.q_positions), of.k, of.v,
                                         positions(of.k_positions), result, of.shape);
  }

  // bf16 rounds the weights too, so its error is bounded by the largest value and not by each. f16 does not.
  void expect_near(const char* name, const Tensor& actual, const Values& expected) const {
    const Values values = doubles(actual);
    ASSERT_EQ(values.size(), expected.size());
    double largest = 0;
    for (const double value : expected) {
      if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
    }
    const double tolerance =
        2e-6 + (actual.dtype() == Dtype::f32 ? rounding_of(GetParam()) / 400 : 2.5 * rounding_of(GetParam()));
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] == expected[i]) continue;  // infinities
      ASSERT_NEAR(values[i], expected[i], tolerance * std::max(largest, 1.0)) << name << " " << i;
    }
  }

  void compare(const ops::AttentionShape& shape, const Indices& q_positions, const Indices& k_positions) {
    SCOPED_TRACE(fmt::format("batch {} heads {}/{} width {} queries {} keys {}", shape.batch, shape.heads,
                             shape.kv_heads, shape.head_dim, q_positions.size(), k_positions.size()));
    const AttentionProblem of = problem(shape, q_positions, k_positions);
    const ExpectedAttention expected = naive(of);
    const ops::Attention result = forward(of);
    expect_near("out", result.out, expected.out);
    expect_near("log-sum-exp", result.log_sum_exp, expected.log_sum_exp);
    const ops::AttentionGradients gradients = backward(of, result);
    expect_near("dq", gradients.dq, expected.dq);
    expect_near("dk", gradients.dk, expected.dk);
    expect_near("dv", gradients.dv, expected.dv);
  }

  DeviceHandle device_ = make_test_device();
};

TEST_P(Attention, AgreesWithDoublePrecisionAtAnyLength) {
  for (const int64_t length : {1, 2, 17, 63, 64, 65, 129, 300}) {
    compare({2, 2, 1, 16}, counting(length), counting(length));
  }
}

TEST_P(Attention, AgreesWithDoublePrecisionAtAnyHeads) {
  compare({1, 6, 2, 64}, counting(140), counting(140));
  compare({3, 4, 4, 24}, counting(33), counting(33));
  compare({1, 3, 1, 7}, counting(70), counting(70));
  compare({1, 2, 2, 1}, counting(40), counting(40));
  compare({1, 1, 1, 128}, counting(90), counting(90));
}

TEST_P(Attention, QueriesAndKeysMayDiffer) {
  compare({2, 2, 1, 16}, counting(20, 180), counting(200));
  compare({2, 2, 1, 16}, counting(200), counting(37));
  compare({1, 1, 1, 16}, counting(1, 77), counting(129));
}

TEST_P(Attention, RowsThatSeeNoKeyAreZero) {
  compare({1, 2, 1, 16}, counting(150), counting(150, 75));
  const AttentionProblem of = problem({1, 2, 1, 16}, counting(70), counting(70, 1000));
  const ops::Attention result = forward(of);
  for (const double value : doubles(result.out)) EXPECT_EQ(value, 0.0);
  for (const double value : doubles(result.log_sum_exp)) EXPECT_EQ(value, -INFINITY);
  const ops::AttentionGradients gradients = backward(of, result);
  for (const Tensor& gradient : {gradients.dq, gradients.dk, gradients.dv}) {
    for (const double value : doubles(gradient)) EXPECT_EQ(value, 0.0);
  }
}

TEST_P(Attention, PositionsMayBeStripedZigzagOrShuffled) {
  Indices striped, zigzag, shuffled = counting(200);
  for (int32_t i = 0; i < 150; ++i) striped.push_back(4 * i + 1);
  for (int32_t i = 0; i < 75; ++i) zigzag.push_back(i);
  for (int32_t i = 0; i < 75; ++i) zigzag.push_back(525 + i);
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(1));
  const ops::AttentionShape shape = {1, 2, 1, 16};
  compare(shape, striped, striped);
  compare(shape, zigzag, zigzag);
  compare(shape, zigzag, counting(150, 400));
  compare(shape, counting(150, 400), zigzag);
  compare(shape, shuffled, shuffled);
}

TEST_P(Attention, AcceptsEmptyTensors) {
  compare({2, 2, 1, 16}, counting(5), {});
  compare({2, 2, 1, 16}, {}, counting(5));
  compare({0, 2, 1, 16}, counting(5), counting(5));
}

TEST_P(Attention, IsStableForLargeScores) {
  AttentionProblem of = problem({1, 2, 1, 16}, counting(150), counting(150));
  ops::scale_(of.q, 100.0f);
  ops::scale_(of.k, 100.0f);
  const ExpectedAttention expected = naive(of);
  ASSERT_GT(*std::max_element(expected.log_sum_exp.begin(), expected.log_sum_exp.end()), 1e4);
  const ops::Attention result = forward(of);
  const Values actual = doubles(result.log_sum_exp);
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected.log_sum_exp[i], 0.01);
  const ops::AttentionGradients gradients = backward(of, result);
  for (const Tensor& tensor : {result.out, gradients.dq, gradients.dk, gradients.dv}) {
    for (const double value : doubles(tensor)) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_P(Attention, GivesTheSameBitsAtAnyAlignment) {
  const AttentionProblem of = problem({2, 4, 2, 24}, counting(97), counting(97));
  const ops::Attention whole = forward(of);
  const ops::AttentionGradients gradients = backward(of, whole);
  for (const int64_t by : test_shifts()) {
    AttentionProblem moved = of;
    for (Tensor* tensor : {&moved.q, &moved.k, &moved.v, &moved.dout}) *tensor = shifted(*tensor, by);
    const ops::Attention again = forward(moved);
    EXPECT_TRUE(same_bits(again.out, whole.out) && same_bits(again.log_sum_exp, whole.log_sum_exp)) << by;
    const ops::AttentionGradients of_moved = backward(moved, again);
    EXPECT_TRUE(same_bits(of_moved.dq, gradients.dq)) << by;
    EXPECT_TRUE(same_bits(of_moved.dk, gradients.dk)) << by;
    EXPECT_TRUE(same_bits(of_moved.dv, gradients.dv)) << by;
  }
}

// What ring attention does: two blocks of keys, each with its own log-sum-exp, weighted and added.
TEST_P(Attention, MergesTheAttentionOfOtherKeys) {
  const ops::AttentionShape shape = {2, 4, 2, 24};
  for (const float scale : {1.0f, 10.0f}) {
    AttentionProblem whole = problem(shape, counting(70, 10), counting(80));
    ops::scale_(whole.q, scale);
    AttentionProblem parts[2] = {whole, whole};
    const Indices middle = {5, 12, 40}, others = [&] {
      Indices all = counting(80);
      for (const int32_t key : middle) std::erase(all, key);
      return all;
    }();
    const auto keys = [&](const Tensor& x, const Indices& some) {
      Indices rows = some;
      for (const int32_t key : some) rows.push_back(80 + key);
      return ops::embedding(positions(rows), x);
    };
    for (int i = 0; i < 2; ++i) {
      parts[i].k_positions = i == 0 ? middle : others;
      parts[i].k = keys(whole.k, parts[i].k_positions);
      parts[i].v = keys(whole.v, parts[i].k_positions);
    }
    const ExpectedAttention expected = naive(whole);
    for (const int first : {0, 1}) {
      const ops::Attention part = forward(parts[first]);
      const ops::Attention sum = {ops::cast(part.out, Dtype::f32), part.log_sum_exp};
      ops::merge_attention_(sum, forward(parts[1 - first]), shape);
      expect_near("out", ops::cast(sum.out, GetParam()), expected.out);
      expect_near("log-sum-exp", sum.log_sum_exp, expected.log_sum_exp);
    }
  }
}

// A row that sees no key of a block stays as it is; one that has seen none so far becomes the block's.
TEST_P(Attention, MergesRowsWithoutKeys) {
  const ops::AttentionShape shape = {1, 2, 1, 16};
  const AttentionProblem of = problem(shape, counting(70), counting(70));
  const AttentionProblem unseen = problem(shape, counting(70), counting(70, 1000));
  const ops::Attention seen = forward(of), sum = {copy_of(seen.out), copy_of(seen.log_sum_exp)};
  ops::merge_attention_(sum, forward(unseen), shape);
  EXPECT_TRUE(same_bits(sum.out, seen.out) && same_bits(sum.log_sum_exp, seen.log_sum_exp));
  const ops::Attention empty = forward(unseen);
  ops::merge_attention_(empty, seen, shape);
  EXPECT_TRUE(same_bits(empty.out, seen.out) && same_bits(empty.log_sum_exp, seen.log_sum_exp));
}

// The gradients of blocks, given the whole row's log-sum-exp, are those of the whole.
TEST_P(Attention, BlocksOfKeysMergeIntoTheWhole) {
  const int64_t length = 200, cut = 90, heads = 2, d = 16;
  const AttentionProblem of = problem({1, heads, 1, d}, counting(length), counting(length));
  const ops::Attention whole = forward(of);
  AttentionProblem parts[2] = {of, of};
  for (int i = 0; i < 2; ++i) {
    const int64_t begin = i == 0 ? 0 : cut, end = i == 0 ? cut : length;
    parts[i].k_positions = Indices(of.k_positions.begin() + begin, of.k_positions.begin() + end);
    parts[i].k = of.k.rows(begin, end);
    parts[i].v = of.v.rows(begin, end);
  }
  const ops::Attention first = forward(parts[0]), second = forward(parts[1]);
  const Values a_sum = doubles(first.log_sum_exp), b_sum = doubles(second.log_sum_exp);
  const Values a_out = doubles(first.out), b_out = doubles(second.out);
  Values merged(length * heads * d), log_sum_exp(heads * length);
  for (int64_t row = 0; row < heads * length; ++row) {
    const double a = a_sum[row], b = b_sum[row];
    log_sum_exp[row] = a + std::log1p(std::exp(b - a));
    for (int64_t i = 0; i < d; ++i) {
      const int64_t at = (row % length * heads + row / length) * d + i;
      merged[at] = std::exp(a - log_sum_exp[row]) * a_out[at] + std::exp(b - log_sum_exp[row]) * b_out[at];
    }
  }
  expect_near("out", whole.out, merged);
  expect_near("log-sum-exp", whole.log_sum_exp, log_sum_exp);

  const ops::AttentionGradients all = backward(of, whole);
  const ops::AttentionGradients of_first = backward(parts[0], whole), of_second = backward(parts[1], whole);
  expect_near("dq", ops::add(of_first.dq, of_second.dq), doubles(all.dq));
  expect_near("dk", of_first.dk, doubles(all.dk.rows(0, cut)));
  expect_near("dv", of_second.dv, doubles(all.dv.rows(cut, length)));
}

INSTANTIATE_TEST_SUITE_P(All, Attention, testing::ValuesIn(float_types),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// [batch, heads, time, width] as [batch * time, heads * width].
Tensor by_tokens(const GoldenTensor& golden, const DeviceHandle& device) {
  const int64_t batch = golden.shape[0], heads = golden.shape[1], time = golden.shape[2], width = golden.shape[3];
  std::vector<float> values(golden.floats.size());
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const int64_t column = i % width, t = i / width % time, head = i / width / time % heads,
                  b = i / width / time / heads;
    values[((b * time + t) * heads + head) * width + column] = golden.floats[i];
  }
  return Tensor::from(device, {batch * time, heads * width}, values);
}

TEST(AttentionGolden, AgreesWithPyTorch) {
  const DeviceHandle device = make_test_device();
  const GoldenFile golden = read_safetensors(NINEFOLD_TEST_DATA "/attention.safetensors");
  const Shape& q = golden["q"].shape;
  const ops::AttentionShape shape = {q[0], q[1], golden["k"].shape[1], q[3]};
  const Tensor positions = Tensor::from(device, {q[2]}, counting(q[2]));
  const auto expect_close = [&](const Tensor& actual, const Tensor& expected) {
    const Values a = doubles(actual), b = doubles(expected);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-6);
  };
  const Tensor k = by_tokens(golden["k"], device), v = by_tokens(golden["v"], device);
  const ops::Attention result = ops::attention_block(by_tokens(golden["q"], device), positions, k, v, positions, shape);
  expect_close(result.out, by_tokens(golden["out"], device));
  expect_close(result.log_sum_exp, golden["log_sum_exp"].on(device));
  const ops::AttentionGradients gradients = ops::attention_block_backward(
      by_tokens(golden["dout"], device), by_tokens(golden["q"], device), positions, k, v, positions, result, shape);
  expect_close(gradients.dq, by_tokens(golden["dq"], device));
  expect_close(gradients.dk, by_tokens(golden["dk"], device));
  expect_close(gradients.dv, by_tokens(golden["dv"], device));
}

}  // namespace
}  // namespace ninefold
