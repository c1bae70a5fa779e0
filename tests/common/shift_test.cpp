// Every operation gives the same bits wherever its inputs begin: an element's result must not depend on whether it
// falls into the body or the tail of a vector loop. Flat shards and sharded initialisation rest on that.
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/numbers.h"
#include "tests/support/test_device.h"

namespace ninefold {
namespace {

// Makes the inputs of one call, each beginning `by` elements after an aligned address.
struct Inputs {
  DeviceHandle device;
  Dtype dtype;
  int64_t by;

  Tensor random(const Shape& shape, uint32_t seed) const { return random_of(dtype, shape, seed); }
  Tensor random_f32(const Shape& shape, uint32_t seed) const { return random_of(Dtype::f32, shape, seed); }
  Tensor squares(const Shape& shape, uint32_t seed) const {
    std::vector<float> values = random_tensor(device, shape, Dtype::f32, seed).to_vector<float>();
    for (float& value : values) value *= value;
    return shifted(Tensor::from(device, shape, values), by);
  }
  Tensor integers(const Shape& shape, int32_t below) const {
    std::vector<int32_t> values;
    for (int64_t i = 0; i < elements(shape); ++i) values.push_back(static_cast<int32_t>(i * 7 % below));
    return shifted(Tensor::from(device, shape, values), by);
  }
  Tensor positions(int64_t n) const { return integers({n}, 1 << 30); }

 private:
  Tensor random_of(Dtype type, const Shape& shape, uint32_t seed) const {
    return shifted(random_tensor(device, shape, type, seed), by);
  }
};

// A value as a tensor, so that bits can be compared.
template <typename T>
Tensor bits_of(const Inputs& in, const T& value) {
  std::vector<int32_t> words(sizeof(T) / sizeof(int32_t));
  std::memcpy(words.data(), &value, words.size() * sizeof(int32_t));
  return Tensor::from(in.device, {static_cast<int64_t>(words.size())}, words);
}

struct Operation {
  std::string name;
  std::function<std::vector<Tensor>(const Inputs&)> run;  // returns what it computed or changed
};
void PrintTo(const Operation& operation, std::ostream* out) { *out << operation.name; }

const Shape odd = {3, 41};

std::vector<Operation> elementwise_operations() {
  return {
      {"copy",
       [](const Inputs& in) {
         std::vector<Tensor> copies;
         for (const Dtype to : float_types) copies.push_back(ops::cast(in.random(odd, 1), to));
         return copies;
       }},
      {"quantize",
       [](const Inputs& in) {
         const Tensor q = ops::quantize(in.random(odd, 1), 0.01f, Dtype::f8_e4m3);
         return std::vector{q, ops::dequantize(shifted(q, in.by), 0.01f, in.dtype),
                            ops::quantize(in.random(odd, 1), 1.0f, Dtype::f8_e5m2)};
       }},
      {"fill",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::fill_(x, 0.1f);
         return std::vector{x};
       }},
      {"copy_columns",
       [](const Inputs& in) {
         const Tensor to = in.random({3, 50}, 1);
         ops::copy_columns_(to, 7, in.random(odd, 2), 3, 37);
         return std::vector{to};
       }},
      {"sums_of_exponentials",
       [](const Inputs& in) {
         const Tensor sum = ops::exp_difference(in.random(odd, 1), in.random(odd, 2));
         return std::vector{sum, ops::log_sum(in.random(odd, 1), shifted(sum, in.by))};
       }},
      {"add", [](const Inputs& in) { return std::vector{ops::add(in.random(odd, 1), in.random(odd, 2))}; }},
      {"add_of_types",
       [](const Inputs& in) {
         const Tensor x = in.random_f32(odd, 1);
         ops::add_(x, in.random(odd, 2));
         return std::vector{x};
       }},
      {"scale",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::scale_(x, 0.3f);
         return std::vector{x};
       }},
      {"add_bias",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::add_bias_(x, in.random({41}, 2));
         return std::vector{x};
       }},
      {"add_row_sums",
       [](const Inputs& in) {
         const Tensor x = in.random({41}, 1);
         ops::add_row_sums(x, in.random(odd, 2));
         return std::vector{x};
       }},
      {"relu", [](const Inputs& in) { return std::vector{ops::relu(in.random(odd, 1))}; }},
      {"relu_backward",
       [](const Inputs& in) { return std::vector{ops::relu_backward(in.random(odd, 1), in.random(odd, 2))}; }},
      {"swiglu", [](const Inputs& in) { return std::vector{ops::swiglu(in.random(odd, 1), in.random(odd, 2))}; }},
      {"swiglu_backward",
       [](const Inputs& in) {
         const auto g = ops::swiglu_backward(in.random(odd, 1), in.random(odd, 2), in.random(odd, 3));
         return std::vector{g.dgate, g.dup};
       }},
      {"dropout", [](const Inputs& in) { return std::vector{ops::dropout(in.random(odd, 1), 0.3f, {.seed = 5})}; }},
  };
}

std::vector<Operation> layer_operations() {
  return {
      {"rms_norm",
       [](const Inputs& in) {
         const auto n = ops::rms_norm(in.random(odd, 1), in.random(odd, 2), in.random({41}, 3), 1e-5f);
         return std::vector{n.y, n.sum, n.inverse_deviation};
       }},
      {"rms_norm_backward",
       [](const Inputs& in) {
         const Tensor dweight = in.random({41}, 1);
         return std::vector{ops::rms_norm_backward(in.random(odd, 2), in.random(odd, 3), in.random(odd, 4),
                                                   in.random({41}, 5), in.squares({3}, 6), in.random(odd, 7), dweight),
                            dweight};
       }},
      {"rope",
       [](const Inputs& in) {
         const Tensor x = in.random({6, 3 * 34}, 1);
         ops::rope_(x, in.positions(3), ops::rope_frequencies(34, 10000.0), ops::RopeDirection::forward);
         return std::vector{x};
       }},
      {"embedding",
       [](const Inputs& in) {
         return std::vector{ops::embedding(in.integers({9}, 5), in.random({5, 41}, 1))};
       }},
      {"embedding_backward",
       [](const Inputs& in) {
         const Tensor table = in.random({5, 41}, 1);
         ops::embedding_backward(table, in.integers({9}, 5), in.random({9, 41}, 2));
         return std::vector{table};
       }},
      {"cross_entropy",
       [](const Inputs& in) {
         const auto c = ops::cross_entropy(in.random(odd, 1), in.integers({3}, 41));
         return std::vector{c.losses, c.log_sum_exp};
       }},
      {"partial_cross_entropy",
       [](const Inputs& in) {
         const auto c = ops::partial_cross_entropy(in.random(odd, 1), in.integers({3}, 60), {.first = 10, .count = 37});
         return std::vector{c.log_sum_exp, c.target_logit};
       }},
      {"cross_entropy_backward",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::cross_entropy_backward_(x, in.integers({3}, 41), in.random_f32({3}, 2), 0.1f);
         return std::vector{x};
       }},
      {"log_softmax", [](const Inputs& in) { return std::vector{ops::log_softmax(in.random(odd, 1))}; }},
      {"nll", [](const Inputs& in) { return std::vector{ops::nll(in.random(odd, 1), in.integers({3}, 41))}; }},
      {"log_softmax_nll_backward",
       [](const Inputs& in) {
         return std::vector{ops::log_softmax_nll_backward(in.random(odd, 1), in.integers({3}, 41), 0.1f)};
       }},
      {"count_correct",
       [](const Inputs& in) {
         return std::vector{bits_of(in, ops::count_correct(in.random(odd, 1), in.integers({3}, 41)))};
       }},
  };
}

std::vector<Operation> product_operations() {
  return {
      {"matmul",
       [](const Inputs& in) {
         return std::vector{ops::matmul(in.random({19, 41}, 1), in.random({41, 23}, 2))};
       }},
      {"matmul_transposed",
       [](const Inputs& in) {
         return std::vector{
             ops::matmul(in.random({41, 19}, 1), in.random({23, 41}, 2), {.transpose_a = true, .transpose_b = true})};
       }},
      {"matmul_accumulated",
       [](const Inputs& in) {
         const Tensor out = in.random_f32({19, 23}, 3);
         ops::matmul_into(out, in.random({41, 19}, 1), in.random({41, 23}, 2),
                          {.transpose_a = true, .accumulate = true});
         return std::vector{out};
       }},
      {"grouped_matmul",
       [](const Inputs& in) {
         const std::vector<int64_t> counts = {5, 0, 14};
         const Tensor x = in.random({19, 41}, 1), dw = in.random_f32({3, 23, 41}, 4);
         const Tensor y = ops::grouped_matmul(x, in.random({3, 23, 41}, 2), counts, {.transpose_b = true});
         ops::grouped_matmul_into(dw, in.random({19, 23}, 3), x, counts, {.transpose_a = true, .accumulate = true});
         return std::vector{y, dw};
       }},
      {"weighted_rows",
       [](const Inputs& in) {
         const Tensor sum = in.random({3, 41}, 1), rows = in.random({6, 41}, 2), weights = in.random_f32({3, 2}, 3);
         ops::add_weighted_rows(sum, rows, in.integers({3, 2}, 6), weights);
         const auto g = ops::weighted_rows_backward(in.random({3, 41}, 4), rows, in.integers({3, 2}, 6), weights);
         return std::vector{sum, g.drows, g.dweights, ops::gather_rows(rows, in.integers({4}, 6))};
       }},
      {"attention_block",
       [](const Inputs& in) {
         const auto a =
             ops::attention_block(in.random({2 * 21, 4 * 24}, 1), in.positions(21), in.random({2 * 21, 2 * 24}, 2),
                                  in.random({2 * 21, 2 * 24}, 3), in.positions(21), {2, 4, 2, 24});
         return std::vector{a.out, a.log_sum_exp};
       }},
      {"merge_attention",
       [](const Inputs& in) {
         const ops::Attention sum = {in.random_f32({2 * 21, 4 * 24}, 1), in.random_f32({2, 4, 21}, 2)};
         ops::merge_attention_(sum, {in.random({2 * 21, 4 * 24}, 3), in.random_f32({2, 4, 21}, 4)}, {2, 4, 2, 24});
         return std::vector{sum.out, sum.log_sum_exp};
       }},
      {"attention_block_backward",
       [](const Inputs& in) {
         const Tensor q = in.random({2 * 21, 4 * 24}, 1), k = in.random({2 * 21, 2 * 24}, 2),
                      v = in.random({2 * 21, 2 * 24}, 3);
         const ops::Attention forward{in.random({2 * 21, 4 * 24}, 4), in.squares({2, 4, 21}, 5)};
         const auto g = ops::attention_block_backward(in.random({2 * 21, 4 * 24}, 6), q, in.positions(21), k, v,
                                                      in.positions(21), forward, {2, 4, 2, 24});
         return std::vector{g.dq, g.dk, g.dv};
       }},
      {"convolution",
       [](const Inputs& in) {
         return std::vector{
             ops::convolution(in.random({2, 3, 9, 9}, 1), in.random({5, 3, 3, 3}, 2), in.random({5}, 3))};
       }},
      {"convolution_backward",
       [](const Inputs& in) {
         const Tensor dweight = in.random_f32({5, 3, 3, 3}, 1), dbias = in.random_f32({5}, 2);
         return std::vector{ops::convolution_backward(in.random({2, 5, 7, 7}, 3), in.random({2, 3, 9, 9}, 4),
                                                      in.random({5, 3, 3, 3}, 5), dweight, dbias, true),
                            dweight, dbias};
       }},
      {"max_pool",
       [](const Inputs& in) {
         const auto p = ops::max_pool(in.random({2, 3, 6, 38}, 1));
         return std::vector{p.y, p.index};
       }},
      {"max_pool_backward",
       [](const Inputs& in) {
         return std::vector{
             ops::max_pool_backward(in.random({2, 3, 3, 19}, 1), in.integers({2, 3, 3, 19}, 4), {2, 3, 6, 38})};
       }},
  };
}

std::vector<Operation> update_operations() {
  return {
      {"sum", [](const Inputs& in) { return std::vector{bits_of(in, ops::sum(in.random(odd, 1)))}; }},
      {"sum_of_squares",
       [](const Inputs& in) { return std::vector{bits_of(in, ops::sum_of_squares(in.random(odd, 1)).fixed)}; }},
      {"fill_uniform",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::fill_random_(x, {ops::Distribution::Kind::uniform, 0.1, 0.7}, 5, 3);
         return std::vector{x};
       }},
      {"fill_normal",
       [](const Inputs& in) {
         const Tensor x = in.random(odd, 1);
         ops::fill_random_(x, {ops::Distribution::Kind::normal, 0.1, 0.7}, 5, 3);
         return std::vector{x};
       }},
      {"adamw",
       [](const Inputs& in) {
         const Tensor p = in.random_f32(odd, 1), m = in.random_f32(odd, 2), v = in.squares(odd, 3),
                      copy = in.random(odd, 4);
         ops::adamw_({p, in.random(odd, 5), copy, 0.7f}, m, v, {0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 3});
         return std::vector{p, m, v, copy};
       }},
      {"adadelta",
       [](const Inputs& in) {
         const Tensor p = in.random_f32(odd, 1), s = in.squares(odd, 2), d = in.squares(odd, 3),
                      copy = in.random(odd, 4);
         ops::adadelta_({p, in.random(odd, 5), copy, 0.7f}, s, d, {1.0f, 0.9f, 1e-6f, 0.1f});
         return std::vector{p, s, d, copy};
       }},
      {"sgd",
       [](const Inputs& in) {
         const Tensor p = in.random_f32(odd, 1), m = in.random_f32(odd, 2), copy = in.random(odd, 3);
         ops::sgd_({p, in.random(odd, 4), copy, 0.7f}, m, {0.1f, 0.9f, 0.1f, 2});
         return std::vector{p, m, copy};
       }},
  };
}

std::vector<Operation> all_operations() {
  std::vector<Operation> all;
  for (const auto& some : {elementwise_operations(), layer_operations(), product_operations(), update_operations()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

class Shift : public testing::TestWithParam<std::tuple<Operation, Dtype>> {};

TEST_P(Shift, GivesTheSameBits) {
  const auto& [operation, dtype] = GetParam();
  if (test_device_is_gpu() && operation.name.find("matmul") != std::string::npos) {
    GTEST_SKIP() << "cuBLASLt chooses by alignment";
  }
  const DeviceHandle device = make_test_device();
  const std::vector<Tensor> expected = operation.run({device, dtype, 0});
  for (const int64_t by : test_shifts()) {
    const std::vector<Tensor> results = operation.run({device, dtype, by});
    ASSERT_EQ(results.size(), expected.size());
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(same_bits(results[i], expected[i])) << "result " << i << " differs at a shift of " << by;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, Shift,
                         testing::Combine(testing::ValuesIn(all_operations()), testing::ValuesIn(float_types)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" + std::string(name_of(std::get<1>(info.param)));
                         });

}  // namespace
}  // namespace ninefold
