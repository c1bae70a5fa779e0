// Attention over ranks against attention on one: results, log-sum-exp and gradients, for every layout; what is sent.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "01_collectives/collectives.h"
#include "07_context_parallel/predict.h"
#include "07_context_parallel/runs.h"
#include "common/comm/control.h"
#include "common/comm/mesh.h"
#include "tests/support/faulty_collectives.h"
#include "tests/support/naive_attention.h"
#include "tests/support/numbers.h"
#include "tests/support/safetensors.h"

namespace ninefold {
namespace {

struct Inputs {
  Tensor q, k, v, dout;
};

// What a core computes; log_sum_exp is that of the core inside, undefined where it is not to be had.
struct Results {
  Tensor out, log_sum_exp, dq, dk, dv;
};

struct Problem {
  int64_t batch, length, heads, kv_heads, head_dim;
  Inputs inputs;  // of whole sequences

  Problem cast(Dtype dtype) const {
    Problem other = *this;
    for (Tensor* x : {&other.inputs.q, &other.inputs.k, &other.inputs.v, &other.inputs.dout}) *x = ops::cast(*x, dtype);
    return other;
  }
};

Problem problem(const DeviceHandle& device, int64_t batch, int64_t length, int64_t heads, int64_t kv_heads,
                int64_t head_dim, Dtype dtype) {
  const Shape q = {batch * length, heads * head_dim}, k = {batch * length, kv_heads * head_dim};
  return {batch,
          length,
          heads,
          kv_heads,
          head_dim,
          {random_tensor(device, q, dtype, 1), random_tensor(device, k, dtype, 2), random_tensor(device, k, dtype, 3),
           random_tensor(device, q, dtype, 4)}};
}

Results compute(AttentionCore& core, const Inputs& in, const std::vector<int32_t>& positions) {
  Step step;
  step.rows_per_sample = static_cast<int64_t>(positions.size());
  step.positions = Tensor::from(in.q.device(), {step.rows_per_sample}, positions);
  Saved saved(step);
  Results results;
  results.out = core.forward(in.q, in.k, in.v, saved);
  results.log_sum_exp = saved.pop();
  saved.push(results.log_sum_exp);
  const ops::AttentionGradients gradients = core.backward(in.dout, saved);
  EXPECT_TRUE(saved.empty());
  results.dq = gradients.dq;
  results.dk = gradients.dk;
  results.dv = gradients.dv;
  return results;
}

// log_sum_exp [batch, heads, length] at these positions.
std::vector<double> at(const Tensor& log_sum_exp, const std::vector<int32_t>& positions) {
  const std::vector<double> all = doubles(log_sum_exp);
  std::vector<double> some;
  for (int64_t row = 0; row < log_sum_exp.dim(0) * log_sum_exp.dim(1); ++row) {
    for (const int32_t position : positions) {
      some.push_back(all[static_cast<size_t>(row * log_sum_exp.dim(2) + position)]);
    }
  }
  return some;
}

double distance(const Tensor& x, const Tensor& y) {
  const std::vector<double> a = doubles(x), b = doubles(y);
  EXPECT_EQ(a.size(), b.size());
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return squares;
}

std::vector<int32_t> counting(int64_t count) {
  std::vector<int32_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

Results plain(const Problem& of) {
  PlainAttention core(of.head_dim);
  return compute(core, of.inputs, counting(of.length));
}

class Ranks {
 public:
  explicit Ranks(CollectivesFactory collectives = collectives::ours())
      : world_({.device = make_cpu_device()}, std::move(collectives)) {}

  Results compute_divided(const Problem& of, const SequenceLayout& layout, const RingOptions& options = {}) {
    return compute_divided(world_.group(), of, layout, options);
  }
  // Over the ranks of `all`.
  Results compute_divided(const Group& all, const Problem& of, const SequenceLayout& layout,
                          const RingOptions& options) {
    const ContextGroups groups = context_groups(all, layout);
    const auto ring = std::make_shared<Ring>(groups.ring, layout, options);
    const auto core = context_core(std::make_unique<PlainAttention>(of.head_dim), groups, layout, ring);
    const std::vector<int32_t> positions = layout.positions(all.rank(), of.length);
    const Inputs& in = of.inputs;
    const Results results = compute(*core,
                                    {rows_at(in.q, positions, of.batch), rows_at(in.k, positions, of.batch),
                                     rows_at(in.v, positions, of.batch), rows_at(in.dout, positions, of.batch)},
                                    positions);
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      predict_traffic(world_.traffic(), groups, layout, {of.heads * of.head_dim, of.kv_heads * of.head_dim},
                      of.batch * of.length / layout.ranks, in.q.dtype(), pass, 1);
    }
    return results;
  }

  // Each tensor as a whole: |found - reference| <= bound |reference|, and where `own` is given 1.5 |own - reference|
  // more.
  void expect_near(const Results& found, const Results& reference, const Results* own, const Problem& of,
                   const SequenceLayout& layout) {
    const std::vector<int32_t> positions = layout.positions(world_.rank(), of.length);
    for (const auto& [name, tensor] :
         {std::pair{"out", &Results::out}, {"dq", &Results::dq}, {"dk", &Results::dk}, {"dv", &Results::dv}}) {
      const Tensor expected = rows_at(reference.*tensor, positions, of.batch);
      const double off = std::sqrt(control::sum(world_.group(), distance(found.*tensor, expected)));
      const Tensor zeros = Tensor::zeros(expected.device(), (reference.*tensor).shape(), Dtype::f32);
      const double norm = std::sqrt(distance(reference.*tensor, zeros));
      const double of_own = own ? std::sqrt(distance(own->*tensor, reference.*tensor)) : 0;
      EXPECT_LE(off, 1e-5 * norm + 1.5 * of_own) << name << ", norm " << norm;
    }
    if (layout.ulysses > 1) return;
    const std::vector<double> expected = at(reference.log_sum_exp, positions), sums = doubles(found.log_sum_exp);
    ASSERT_EQ(expected.size(), sums.size());
    for (size_t i = 0; i < sums.size(); ++i) {
      const double tolerance = own ? 2e-2 : 1e-5;
      ASSERT_NEAR(sums[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << "log-sum-exp " << i;
    }
  }

  void expect_books_to_balance() {
    for (const auto& [dimension, operations] : world_.traffic().techniques()) {
      for (const auto& [operation, entry] : operations) {
        EXPECT_EQ(entry.calls, entry.predicted_calls) << dimension << " " << name_of(operation);
        EXPECT_EQ(entry.messages, entry.predicted_messages) << dimension << " " << name_of(operation);
        EXPECT_EQ(entry.bytes, entry.predicted_bytes) << dimension << " " << name_of(operation);
      }
    }
  }

  World& world() { return world_; }

 private:
  World world_;
};

// Those that fit so many kv-heads.
std::vector<SequenceLayout> layouts_for(int ranks, int64_t kv_heads) {
  std::vector<SequenceLayout> fitting;
  for (const auto& [layout, name] : layouts) {
    for (int ulysses = 1; ulysses <= ranks; ++ulysses) {
      const bool is_usual = layout == ContextLayout::ulysses ? ulysses == ranks : ulysses == 1;
      if (layout == ContextLayout::hybrid ? ulysses == 1 || ranks % ulysses != 0 : !is_usual) continue;
      if (kv_heads % ulysses == 0) fitting.emplace_back(layout, ranks, ulysses);
    }
  }
  return fitting;
}

std::string text_of(const Problem& of, const SequenceLayout& layout) {
  return fmt::format("{} by {}, batch {}, length {}, heads {}/{}, {}", name_of(layout.layout), layout.ulysses, of.batch,
                     of.length, of.heads, of.kv_heads, name_of(of.inputs.q.dtype()));
}

TEST(ContextAttention, EveryLayoutIsPlainAttention) {
  Ranks ranks;
  const DeviceHandle& device = ranks.world().device();
  struct Form {
    int64_t batch, length, heads, kv_heads, head_dim;
    bool overlap;
  };
  for (const auto& [batch, length, heads, kv_heads, head_dim, overlap] :
       {Form{1, 48, 8, 8, 16, true}, {2, 144, 8, 2, 16, true}, {3, 96, 6, 1, 8, false}, {1, 336, 16, 8, 16, true}}) {
    const Problem in_f32 = problem(device, batch, length, heads, kv_heads, head_dim, Dtype::bf16).cast(Dtype::f32);
    const Results reference = plain(in_f32);
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      const Problem of = in_f32.cast(dtype);
      const Results own = plain(of);
      for (const SequenceLayout& layout : layouts_for(job_size(), kv_heads)) {
        SCOPED_TRACE(text_of(of, layout));
        const Results found = ranks.compute_divided(of, layout, {.overlap = overlap});
        ranks.expect_near(found, reference, dtype == Dtype::f32 ? nullptr : &own, of, layout);
      }
    }
  }
  ranks.expect_books_to_balance();
}

// Whoever has all tokens of a head computes what one rank would, bit for bit.
TEST(ContextAttention, UlyssesHasTheBitsOfPlainAttention) {
  Ranks ranks;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    const Problem of = problem(ranks.world().device(), 2, 120, 24, 24, 8, dtype);
    const Results reference = plain(of);
    const SequenceLayout layout(ContextLayout::ulysses, job_size());
    const std::vector<int32_t> positions = layout.positions(job_rank(), of.length);
    const Results found = ranks.compute_divided(of, layout);
    for (const auto tensor : {&Results::out, &Results::dq, &Results::dk, &Results::dv}) {
      EXPECT_TRUE(same_bits(found.*tensor, rows_at(reference.*tensor, positions, of.batch)));
    }
  }
}

// [batch, heads, time, width] as [batch * time, heads * width].
Tensor by_tokens(const GoldenTensor& golden, const DeviceHandle& device) {
  const int64_t batch = golden.shape[0], heads = golden.shape[1], time = golden.shape[2], width = golden.shape[3];
  std::vector<float> values(golden.floats.size());
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const int64_t column = i % width, t = i / width % time, head = i / width / time % heads,
                  b = i / width / time / heads;
    values[static_cast<size_t>(((b * time + t) * heads + head) * width + column)] =
        golden.floats[static_cast<size_t>(i)];
  }
  return Tensor::from(device, {batch * time, heads * width}, values);
}

TEST(ContextAttention, AgreesWithPyTorch) {
  Ranks ranks;
  const DeviceHandle& device = ranks.world().device();
  const GoldenFile golden = read_safetensors(NINEFOLD_TEST_DATA "/attention.safetensors");
  const Shape& q = golden["q"].shape;
  const auto tensor = [&](const char* name) { return by_tokens(golden[name], device); };
  const Problem of = {
      q[0], q[2], q[1], golden["k"].shape[1], q[3], {tensor("q"), tensor("k"), tensor("v"), tensor("dout")}};
  const Results reference = {tensor("out"), golden["log_sum_exp"].on(device), tensor("dq"), tensor("dk"), tensor("dv")};
  int compared = 0;
  for (const SequenceLayout& layout : layouts_for(job_size(), of.kv_heads)) {
    if (of.length % layout.divisor() != 0) continue;
    SCOPED_TRACE(text_of(of, layout));
    ranks.expect_near(ranks.compute_divided(of, layout), reference, nullptr, of, layout);
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

// Scores of ten thousand and more, whose exponentials nothing could hold; and a first row that sees a single key. As
// far from double precision as one rank is: f32 has scores of that size with errors of 1e-3.
TEST(ContextAttention, IsStableForLargeScores) {
  Ranks ranks;
  const DeviceHandle& device = ranks.world().device();
  for (const float sign : {1.0f, -1.0f}) {
    Problem of = problem(device, 1, 96, 4, 4, 16, Dtype::f32);
    ops::scale_(of.inputs.q, 100.0f * sign);
    ops::scale_(of.inputs.k, 100.0f);
    const auto [q, k, v, dout] = of.inputs;
    const ExpectedAttention exact =
        naive({{1, of.heads, of.kv_heads, of.head_dim}, counting(of.length), counting(of.length), q, k, v, dout});
    ASSERT_GT(*std::max_element(exact.log_sum_exp.begin(), exact.log_sum_exp.end()), 1e4);
    const auto tensor = [&](const std::vector<double>& values, const Shape& shape) {
      return Tensor::from(device, shape, std::vector<float>(values.begin(), values.end()));
    };
    const Results reference = {tensor(exact.out, q.shape()), tensor(exact.log_sum_exp, {1, of.heads, of.length}),
                               tensor(exact.dq, q.shape()), tensor(exact.dk, k.shape()), tensor(exact.dv, k.shape())};
    const Results own = plain(of);
    for (const SequenceLayout& layout : layouts_for(job_size(), of.kv_heads)) {
      SCOPED_TRACE(text_of(of, layout));
      const Results found = ranks.compute_divided(of, layout);
      ranks.expect_near(found, reference, &own, of, layout);
      for (const auto of_all : {&Results::out, &Results::dq, &Results::dk, &Results::dv}) {
        for (const double value : doubles(found.*of_all)) ASSERT_TRUE(std::isfinite(value));
      }
      if (layout.positions(job_rank(), of.length).front() != 0) continue;
      const std::vector<double> first = doubles(found.out.rows(0, 1)), only_value = doubles(v.rows(0, 1));
      for (size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(first[i], only_value[i], 1e-6);
      for (const double value : doubles(found.dq.rows(0, 1))) EXPECT_NEAR(value, 0, 1e-3);
    }
  }
}

// The error of `out`, merged in this type in rings of so many ranks, all of which compute the same.
double error_of_merging(Ranks& ranks, Dtype merge, int ring) {
  const Mesh mesh(ranks.world(), {{"copies", 0}, {"cp", ring}});
  const Problem of = problem(ranks.world().device(), 1, 480, 4, 4, 16, Dtype::bf16);
  const SequenceLayout layout(ContextLayout::striped, ring);
  const Tensor expected =
      rows_at(plain(of.cast(Dtype::f32)).out, layout.positions(mesh.coordinate("cp"), of.length), of.batch);
  const Tensor found = ranks.compute_divided(mesh["cp"], of, layout, {.merge = merge}).out;
  return std::sqrt(control::sum(mesh["cp"], distance(found, expected)));
}

// Every merge rounds in bf16, so that the error grows with the ring. In f32 it stays that of one rank.
TEST(ContextAttention, MergingInBf16GrowsWithTheRing) {
  if (job_size() != 8) return;  // rings of 2, 4 and 8
  Ranks ranks;
  const double in_f32 = error_of_merging(ranks, Dtype::f32, 2);
  double before = 0;
  for (const int ring : {2, 4, 8}) {
    const double in_bf16 = error_of_merging(ranks, Dtype::bf16, ring);
    EXPECT_GT(in_bf16, before) << ring;
    EXPECT_LT(error_of_merging(ranks, Dtype::f32, ring), 1.02 * in_f32) << ring;
    before = 1.05 * in_bf16;
  }
}

}  // namespace
}  // namespace ninefold
