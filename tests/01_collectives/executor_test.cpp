// The executor, with all ranks in this process and synchronous sends: every algorithm on real data, by ranks, sizes,
// types and segments. Data are exactly representable, so equality is exact in whatever order is added.
#include "01_collectives/executor/plan_work.h"

#include <gtest/gtest.h>

#include "common/tensor/ops.h"
#include "tests/support/local_cluster.h"

namespace ninefold::collectives {
namespace {

// An algorithm, the number of ranks and the size of segments.
using Case = std::tuple<const Algorithm*, int, int64_t>;

class ExecutorTest : public testing::TestWithParam<Case> {
 protected:
  const Algorithm& algorithm_ = *std::get<0>(GetParam());
  int ranks_ = std::get<1>(GetParam());
  Operation operation_ = algorithm_.operation;

  Cluster cluster(Dtype dtype = Dtype::f32) const {
    return Cluster(ranks_, dtype, [](Operation, int64_t, int) {
      return Choice{std::get<0>(GetParam()), std::get<2>(GetParam())};
    });
  }
  std::vector<int64_t> sizes() const { return {0, 1, 3, ranks_ - 1, 1000}; }

  Values reduction(int64_t size, ReduceOp op, int64_t first = 0) const {
    Values result = contribution(0, size, first);
    for (int rank = 1; rank < ranks_; ++rank) {
      for (int64_t i = 0; i < size; ++i) {
        const float value = element(rank, first + i);
        if (op == ReduceOp::min) result[i] = std::min(result[i], value);
        if (op == ReduceOp::max) result[i] = std::max(result[i], value);
        if (op == ReduceOp::product) result[i] *= value;
        if (op == ReduceOp::sum || op == ReduceOp::avg) result[i] += value;
      }
    }
    if (op == ReduceOp::avg) {
      for (float& value : result) value *= 1.0f / static_cast<float>(ranks_);
    }
    return result;
  }
  // All operations that are exact on this data.
  std::vector<ReduceOp> exact_ops(Dtype dtype) const {
    if (dtype == Dtype::i32) return {ReduceOp::sum, ReduceOp::min, ReduceOp::max};
    return {ReduceOp::sum, ReduceOp::min, ReduceOp::max, ReduceOp::avg};
  }

  // Every rank's contribution of `size` elements and a place for its result of `out_size`.
  std::vector<Call> calls(const Cluster& cluster, int64_t size, int64_t out_size) const {
    std::vector<Call> calls;
    for (int rank = 0; rank < ranks_; ++rank) {
      calls.push_back(
          {.operation = operation_, .in = cluster.tensor(contribution(rank, size)), .out = cluster.space(out_size)});
    }
    return calls;
  }

  void test_all_reduce(Dtype dtype, int64_t size, ReduceOp op, bool in_place);
  void test_reduce(Dtype dtype, int64_t size, ReduceOp op);
  void test_reduce_scatter(Dtype dtype, int64_t size, ReduceOp op, bool in_place);
  void test_all_gather(int64_t size, bool in_place);
  void test_broadcast(int64_t size);
  void test_all_to_all(int64_t size);
};

void ExecutorTest::test_all_reduce(Dtype dtype, int64_t size, ReduceOp op, bool in_place) {
  Cluster ranks = cluster(dtype);
  std::vector<Call> all = calls(ranks, size, size);
  for (Call& call : all) {
    call.op = op;
    if (in_place) call.out = call.in;
  }
  ranks.run(all);
  for (int rank = 0; rank < ranks_; ++rank) {
    EXPECT_EQ(values(all[rank].out), values(ranks.tensor(reduction(size, op)))) << name_of(op);
    if (in_place) continue;
    EXPECT_EQ(values(all[rank].in), contribution(rank, size)) << "the input has changed";
  }
}

void ExecutorTest::test_reduce(Dtype dtype, int64_t size, ReduceOp op) {
  for (int root = 0; root < ranks_; ++root) {
    Cluster ranks = cluster(dtype);
    std::vector<Call> all = calls(ranks, size, 0);
    for (Call& call : all) {
      call.op = op;
      call.peer = root;
      call.out = call.in;
    }
    ranks.run(all);
    for (int rank = 0; rank < ranks_; ++rank) {
      const Values expected = rank == root ? reduction(size, op) : contribution(rank, size);
      EXPECT_EQ(values(all[rank].out), values(ranks.tensor(expected))) << name_of(op);
    }
  }
}

void ExecutorTest::test_reduce_scatter(Dtype dtype, int64_t size, ReduceOp op, bool in_place) {
  Cluster ranks = cluster(dtype);
  std::vector<Call> all = calls(ranks, ranks_ * size, size);
  for (int rank = 0; rank < ranks_; ++rank) {
    all[rank].op = op;
    if (in_place) all[rank].out = all[rank].in.slice(rank * size, {size});
  }
  ranks.run(all);
  for (int rank = 0; rank < ranks_; ++rank) {
    const Values expected = values(ranks.tensor(reduction(size, op, rank * size)));
    EXPECT_EQ(values(all[rank].out), expected) << name_of(op);
    // The other parts of the input are as they were.
    Values input = contribution(rank, ranks_ * size);
    if (in_place) std::copy(expected.begin(), expected.end(), input.begin() + rank * size);
    EXPECT_EQ(values(all[rank].in), input);
  }
}

void ExecutorTest::test_all_gather(int64_t size, bool in_place) {
  Cluster ranks = cluster();
  std::vector<Call> all = calls(ranks, size, ranks_ * size);
  Values expected;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const float value : contribution(rank, size)) expected.push_back(value);
    if (!in_place) continue;
    const Tensor own = all[rank].out.slice(rank * size, {size});
    ops::copy_(own, all[rank].in);
    all[rank].in = own;
  }
  ranks.run(all);
  for (const Call& call : all) EXPECT_EQ(values(call.out), expected);
}

void ExecutorTest::test_broadcast(int64_t size) {
  for (int root = 0; root < ranks_; ++root) {
    Cluster ranks = cluster();
    std::vector<Call> all = calls(ranks, size, 0);
    for (Call& call : all) {
      call.peer = root;
      call.out = call.in;
    }
    ranks.run(all);
    for (const Call& call : all) EXPECT_EQ(values(call.out), contribution(root, size));
  }
}

void ExecutorTest::test_all_to_all(int64_t size) {
  Cluster ranks = cluster();
  const std::vector<Call> all = calls(ranks, ranks_ * size, ranks_ * size);
  ranks.run(all);
  for (int rank = 0; rank < ranks_; ++rank) {
    Values expected;
    for (int peer = 0; peer < ranks_; ++peer) {
      for (const float value : contribution(peer, size, rank * size)) expected.push_back(value);
    }
    EXPECT_EQ(values(all[rank].out), expected);
  }
}

TEST_P(ExecutorTest, GivesTheResult) {
  for (const int64_t size : sizes()) {
    SCOPED_TRACE(fmt::format("{} elements", size));
    switch (operation_) {
      case Operation::all_reduce:
        for (const bool in_place : {true, false}) test_all_reduce(Dtype::f32, size, ReduceOp::sum, in_place);
        break;
      case Operation::reduce:
        test_reduce(Dtype::f32, size, ReduceOp::sum);
        break;
      case Operation::reduce_scatter:
        for (const bool in_place : {true, false}) test_reduce_scatter(Dtype::f32, size, ReduceOp::sum, in_place);
        break;
      case Operation::all_gather:
        for (const bool in_place : {true, false}) test_all_gather(size, in_place);
        break;
      case Operation::broadcast:
        test_broadcast(size);
        break;
      case Operation::all_to_all:
        test_all_to_all(size);
        break;
      default:
        break;
    }
  }
}

TEST_P(ExecutorTest, ReducesEveryTypeInEveryWay) {
  constexpr int64_t size = 37;  // full vectors and a rest
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i32}) {
    for (const ReduceOp op : exact_ops(dtype)) {
      SCOPED_TRACE(name_of(dtype));
      if (operation_ == Operation::all_reduce) test_all_reduce(dtype, size, op, true);
      if (operation_ == Operation::reduce) test_reduce(dtype, size, op);
      if (operation_ == Operation::reduce_scatter) test_reduce_scatter(dtype, size, op, false);
    }
  }
}

// Rank i sends (i + 2 j) % 4 elements to rank j, times `scale`.
void test_uneven_all_to_all(Cluster& cluster, int ranks, int64_t scale) {
  const auto count = [&](int from, int to) { return scale * ((from + 2 * to) % 4); };
  std::vector<Call> all;
  std::vector<Values> expected(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    Call call{.operation = Operation::all_to_all};
    Values in;
    for (int peer = 0; peer < ranks; ++peer) {
      call.in_counts.push_back(count(rank, peer));
      call.out_counts.push_back(count(peer, rank));
      in.insert(in.end(), count(rank, peer), static_cast<float>(10 * rank + peer));
      expected[rank].insert(expected[rank].end(), count(peer, rank), static_cast<float>(10 * peer + rank));
    }
    call.in = cluster.tensor(in);
    call.out = cluster.space(static_cast<int64_t>(expected[rank].size()));
    all.push_back(call);
  }
  cluster.run(all);
  for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(values(all[rank].out), expected[rank]);
}

TEST_P(ExecutorTest, ExchangesUnevenParts) {
  if (operation_ != Operation::all_to_all) return;
  for (const int64_t scale : {1, 50}) {
    Cluster ranks = cluster();
    test_uneven_all_to_all(ranks, ranks_, scale);
  }
}

// Some ranks have little to send and others much, yet all choose the same plan.
TEST(Selector, RanksOfAnUnevenExchangeChooseAlike) {
  for (const int64_t scale : {1, 500, 1500, 100000}) {
    Cluster ranks(4, Dtype::f32, fastest);
    test_uneven_all_to_all(ranks, 4, scale);
  }
}

TEST(Selector, HasAnAlgorithmForEverything) {
  for (const Algorithm& algorithm : algorithms()) {
    for (int ranks = 2; ranks <= 16; ++ranks) {
      for (int64_t bytes = 1; bytes < int64_t{1} << 40; bytes *= 8) {
        for (const Chooser& choose : {Chooser(fastest), Chooser(in_rank_order)}) {
          const Choice choice = choose(algorithm.operation, bytes, ranks);
          EXPECT_EQ(choice.algorithm->operation, algorithm.operation);
          EXPECT_GT(choice.segment_bytes, 0);
        }
      }
    }
  }
}

std::vector<const Algorithm*> collective_algorithms() {
  std::vector<const Algorithm*> found;
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.operation != Operation::send && algorithm.operation != Operation::recv) found.push_back(&algorithm);
  }
  return found;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [algorithm, ranks, segment] = info.param;
  const bool is_cut = segment < largest_message;
  return fmt::format("{}_{}_{}_ranks{}", name_of(algorithm->operation), algorithm->name, ranks, is_cut ? "_cut" : "");
}

INSTANTIATE_TEST_SUITE_P(Algorithms, ExecutorTest,
                         testing::Combine(testing::ValuesIn(collective_algorithms()), testing::Range(2, 9),
                                          testing::Values(largest_message, int64_t{64})),
                         case_name);

// Sums that depend on the order: 1e8 + 1 - 1e8 is 0 or 1 in f32.
TEST(Ordered, SumsHaveTheBitsOfASerialSum) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (const int64_t size : {1, 5, 1000}) {
      Cluster cluster(ranks, Dtype::f32, in_rank_order);
      const auto value = [](int rank, int64_t i) {
        return (rank % 3 - 1) * 1e8f + 0.37f * static_cast<float>(rank + i);
      };
      std::vector<Call> calls;
      Values serial(size);
      for (int rank = 0; rank < ranks; ++rank) {
        Values own(size);
        for (int64_t i = 0; i < size; ++i) {
          own[i] = value(rank, i);
          serial[i] = rank == 0 ? own[i] : serial[i] + own[i];
        }
        const Tensor x = cluster.tensor(own);
        calls.push_back({.operation = Operation::all_reduce, .in = x, .out = x});
      }
      cluster.run(calls);
      for (const Call& call : calls) EXPECT_EQ(values(call.out), serial);
    }
  }
}

// The larger of 0 and -0 is whichever comes second: partners that exchange add in the same order.
TEST(Executor, AllRanksGetTheSameBits) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    Cluster cluster(ranks, Dtype::f32, fastest);
    std::vector<Call> calls;
    for (int rank = 0; rank < ranks; ++rank) {
      const Tensor x = cluster.tensor(Values(100, rank % 2 == 0 ? 0.0f : -0.0f));
      calls.push_back({.operation = Operation::all_reduce, .in = x, .out = x, .op = ReduceOp::max});
    }
    cluster.run(calls);
    for (const Call& call : calls) EXPECT_EQ(std::memcmp(call.out.raw(), calls[0].out.raw(), call.out.bytes()), 0);
  }
}

TEST(Executor, ScratchMemoryIsBookedAsCommunicationAndGivenBack) {
  Cluster cluster(2, Dtype::f32, fastest);
  std::vector<Call> calls;
  for (int rank = 0; rank < 2; ++rank) {
    const Tensor x = cluster.tensor(Values(1 << 20, 1));
    calls.push_back({.operation = Operation::all_reduce, .in = x, .out = x});
  }
  cluster.run(calls);
  EXPECT_GT(cluster.device()->ledger().peak(MemoryKind::communication), 0);
  EXPECT_EQ(cluster.device()->ledger().now(MemoryKind::communication), 0);
}

}  // namespace
}  // namespace ninefold::collectives
