// Every collective, by types and sizes, on exactly representable data: equality is exact, in whatever order is added.
// The same tests for whatever carries the collectives:
//
//   INSTANTIATE_TEST_SUITE_P(Mpi, GroupTest, group_cases("mpi", mpi_collectives), group_case_name);
#pragma once

#include <gtest/gtest.h>

#include "common/comm/group.h"
#include "common/comm/mesh.h"
#include "common/comm/world.h"
#include "tests/support/exact_data.h"

namespace ninefold {

// Makes the collectives of a world, how they are called, and where the tensors are.
struct Carrier {
  std::string name;
  CollectivesFactory (*make)();
  DeviceHandle (*make_device)() = [] { return make_cpu_device(); };
};

using GroupCase = std::tuple<Dtype, int64_t, Carrier>;

class GroupTest : public testing::TestWithParam<GroupCase> {
 protected:
  Tensor tensor(const Values& values, const Shape& shape = {}) const {
    return tensor_of(device_, dtype_, values, shape);
  }
  Tensor space(int64_t size) const { return tensor(Values(size, -77)); }

  // The reduction over all ranks.
  Values reduction(int64_t size, ReduceOp op, int64_t first = 0) const {
    Values result = contribution(0, size, first);
    for (int rank = 1; rank < group_.size(); ++rank) {
      for (int64_t i = 0; i < size; ++i) {
        const float value = element(rank, first + i);
        if (op == ReduceOp::min) result[i] = std::min(result[i], value);
        if (op == ReduceOp::max) result[i] = std::max(result[i], value);
        if (op == ReduceOp::sum || op == ReduceOp::avg) result[i] += value;
      }
    }
    if (op == ReduceOp::avg) {
      for (float& value : result) value *= 1.0f / group_.size();
    }
    return result;
  }
  // As the storage type rounds it: averages over three ranks are not whole.
  Values rounded(const Values& exact) const { return values(tensor(exact)); }

  std::vector<ReduceOp> exact_ops() const {
    if (dtype_ == Dtype::i32) return {ReduceOp::sum, ReduceOp::min, ReduceOp::max};
    return {ReduceOp::sum, ReduceOp::min, ReduceOp::max, ReduceOp::avg};
  }

  DeviceHandle device_ = std::get<2>(GetParam()).make_device();
  World world_{{.device = device_, .timeout = 20, .debug_comm = true}, std::get<2>(GetParam()).make()};
  Group group_ = world_.group();
  Dtype dtype_ = std::get<0>(GetParam());
  int64_t size_ = std::get<1>(GetParam());
  int rank_ = group_.rank();
  int ranks_ = group_.size();
};

TEST_P(GroupTest, AllReduce) {
  for (const ReduceOp op : exact_ops()) {
    const Tensor x = tensor(contribution(rank_, size_));
    group_.all_reduce(x, op);
    EXPECT_EQ(values(x), rounded(reduction(size_, op))) << name_of(op);
  }
}

TEST_P(GroupTest, AllReduceOutOfPlace) {
  for (const ReduceOp op : exact_ops()) {
    const Tensor in = tensor(contribution(rank_, size_)), out = space(size_);
    group_.all_reduce(out, in, op);
    EXPECT_EQ(values(out), rounded(reduction(size_, op))) << name_of(op);
    EXPECT_EQ(values(in), contribution(rank_, size_)) << "the input has changed";
  }
}

TEST_P(GroupTest, AllReduceOfProducts) {
  const Tensor x = tensor(Values(size_, rank_ % 2 ? -1.0f : 2.0f));
  group_.all_reduce(x, ReduceOp::product);
  float product = 1;
  for (int rank = 0; rank < ranks_; ++rank) product *= rank % 2 ? -1.0f : 2.0f;
  EXPECT_EQ(values(x), Values(size_, product));
}

TEST_P(GroupTest, EightBitFloatsAreGatheredButNotAdded) {
  const auto quantized = [&](const Values& values) {
    return ops::quantize(Tensor::from(device_, {static_cast<int64_t>(values.size())}, values), 0.5f, Dtype::f8_e4m3);
  };
  Values expected;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const float value : contribution(rank, size_)) expected.push_back(value);
  }
  const Tensor out = quantized(Values(ranks_ * size_, -77));
  group_.all_gather(out, quantized(contribution(rank_, size_)));
  EXPECT_EQ(values(ops::dequantize(out, 0.5f, Dtype::f32)), expected);
  EXPECT_THROW(group_.all_reduce(out), Error);
}

TEST_P(GroupTest, AllGather) {
  Values expected;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const float value : contribution(rank, size_)) expected.push_back(value);
  }
  const Tensor out = space(ranks_ * size_);
  group_.all_gather(out, tensor(contribution(rank_, size_)));
  EXPECT_EQ(values(out), expected);

  const Tensor in_place = space(ranks_ * size_);
  const Tensor own = in_place.slice(rank_ * size_, {size_});
  ops::copy_(own, tensor(contribution(rank_, size_)));
  group_.all_gather(in_place, own);
  EXPECT_EQ(values(in_place), expected);
}

TEST_P(GroupTest, ReduceScatter) {
  for (const ReduceOp op : exact_ops()) {
    const Values expected = rounded(reduction(size_, op, rank_ * size_));
    const Tensor in = tensor(contribution(rank_, ranks_ * size_));
    const Tensor out = space(size_);
    group_.reduce_scatter(out, in, op);
    EXPECT_EQ(values(out), expected) << name_of(op);
    EXPECT_EQ(values(in), contribution(rank_, ranks_ * size_)) << "the input has changed";

    const Tensor own = in.slice(rank_ * size_, {size_});
    group_.reduce_scatter(own, in, op);
    EXPECT_EQ(values(own), expected) << name_of(op) << " in place";
  }
}

TEST_P(GroupTest, Broadcast) {
  for (int root = 0; root < ranks_; ++root) {
    const Tensor x = tensor(contribution(rank_, size_));
    group_.broadcast(x, root);
    EXPECT_EQ(values(x), contribution(root, size_));
  }
}

TEST_P(GroupTest, Reduce) {
  for (int root = 0; root < ranks_; ++root) {
    for (const ReduceOp op : exact_ops()) {
      const Tensor x = tensor(contribution(rank_, size_));
      group_.reduce(x, root, op);
      EXPECT_EQ(values(x), rank_ == root ? rounded(reduction(size_, op)) : contribution(rank_, size_));
    }
  }
}

TEST_P(GroupTest, AllToAll) {
  const Tensor out = space(ranks_ * size_);
  group_.all_to_all(out, tensor(contribution(rank_, ranks_ * size_)));
  Values expected;
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const float value : contribution(rank, size_, rank_ * size_)) expected.push_back(value);
  }
  EXPECT_EQ(values(out), expected);
}

// Rank i sends (i + j) % 3 rows of `size_` elements to rank j.
TEST_P(GroupTest, UnevenAllToAll) {
  const auto row_count = [](int from, int to) { return static_cast<int64_t>((from + to) % 3); };
  std::vector<int64_t> in_rows, out_rows;
  Values in, expected;
  for (int peer = 0; peer < ranks_; ++peer) {
    in_rows.push_back(row_count(rank_, peer));
    out_rows.push_back(row_count(peer, rank_));
    in.insert(in.end(), in_rows.back() * size_, static_cast<float>(rank_ * 10 + peer));
    expected.insert(expected.end(), out_rows.back() * size_, static_cast<float>(peer * 10 + rank_));
  }
  if (size_ == 0) return;  // rows of no elements
  const int64_t in_total = static_cast<int64_t>(in.size()) / size_;
  const int64_t out_total = static_cast<int64_t>(expected.size()) / size_;
  const Tensor out = tensor(Values(expected.size(), -77), {out_total, size_});
  group_.all_to_all(out, tensor(in, {in_total, size_}), out_rows, in_rows);
  EXPECT_EQ(values(out), expected);
}

TEST_P(GroupTest, SendsAroundTheRing) {
  if (ranks_ == 1) return;
  const int next = (rank_ + 1) % ranks_, previous = (rank_ + ranks_ - 1) % ranks_;
  const Tensor received = space(size_);
  Pending receive = group_.start_recv(received, previous, 3);
  group_.send(tensor(contribution(rank_, size_)), next, 3);
  receive.wait();
  EXPECT_EQ(values(received), contribution(previous, size_));
}

// Each call is its own, however alike it is to the one before.
TEST_P(GroupTest, EveryOperationTakesAnotherSizeThanBefore) {
  const int next = (rank_ + 1) % ranks_, previous = (rank_ + ranks_ - 1) % ranks_;
  for (const int64_t size : {size_, size_ + 3, size_, size_ + 1}) {
    const Tensor one = tensor(contribution(rank_, size)), all = space(ranks_ * size), sum = space(size);
    group_.all_reduce(sum, one);
    EXPECT_EQ(values(sum), reduction(size, ReduceOp::sum));
    group_.all_gather(all, one);
    EXPECT_EQ(values(all.slice(rank_ * size, {size})), contribution(rank_, size));
    if (ranks_ == 1) continue;
    const Tensor received = space(size);
    Pending receive = group_.start_recv(received, previous);
    group_.send(one, next);
    receive.wait();
    EXPECT_EQ(values(received), contribution(previous, size));
  }
}

TEST_P(GroupTest, TagsTellMessagesApart) {
  if (ranks_ == 1) return;
  const Tensor a = space(size_), b = space(size_);
  if (rank_ == 0) {
    Pending first = group_.start_send(tensor(contribution(1, size_)), 1, 1);
    Pending second = group_.start_send(tensor(contribution(2, size_)), 1, 2);
    first.wait();
    second.wait();
  } else if (rank_ == 1) {
    Pending second = group_.start_recv(b, 0, 2);
    Pending first = group_.start_recv(a, 0, 1);
    second.wait();
    first.wait();
    EXPECT_EQ(values(a), contribution(1, size_));
    EXPECT_EQ(values(b), contribution(2, size_));
  }
  group_.barrier();
}

TEST_P(GroupTest, SeveralInFlightWaitedInAnyOrder) {
  const Tensor a = tensor(contribution(rank_, size_)), b = tensor(contribution(rank_, size_, 5));
  const Tensor gathered = space(ranks_ * size_);
  Pending first = group_.start_all_reduce(a);
  Pending second = group_.start_all_gather(gathered, tensor(contribution(rank_, size_)));  // kept alive by the Pending
  Pending third = group_.start_all_reduce(b, ReduceOp::max);
  third.wait();
  first.wait();
  while (!second.test()) continue;
  EXPECT_TRUE(second.test());
  second.wait();
  EXPECT_EQ(values(a), reduction(size_, ReduceOp::sum));
  EXPECT_EQ(values(b), reduction(size_, ReduceOp::max, 5));
  EXPECT_EQ(values(gathered.slice(rank_ * size_, {size_})), contribution(rank_, size_));
}

// On some ranks the first is complete by then, on the others it has to go on beside the blocking calls.
TEST_P(GroupTest, BlockingCallsWhileOthersAreInFlight) {
  const Tensor a = tensor(contribution(rank_, size_)), b = tensor(contribution(rank_, size_, 5));
  const Tensor gathered = space(ranks_ * size_), from_last = tensor(contribution(rank_, size_));
  Pending first = group_.start_all_reduce(a);
  while (rank_ % 2 == 1 && !first.test()) continue;
  group_.all_reduce(b, ReduceOp::max);
  Pending second = group_.start_all_gather(gathered, tensor(contribution(rank_, size_)));
  group_.broadcast(from_last, ranks_ - 1);
  EXPECT_EQ(values(b), reduction(size_, ReduceOp::max, 5));
  EXPECT_EQ(values(from_last), contribution(ranks_ - 1, size_));
  second.wait();
  first.wait();
  EXPECT_EQ(values(a), reduction(size_, ReduceOp::sum));
  EXPECT_EQ(values(gathered.slice((ranks_ - 1) * size_, {size_})), contribution(ranks_ - 1, size_));
}

// Only the call under way holds them: neither a call that has returned nor the collectives themselves keep any.
TEST_P(GroupTest, TensorsLiveAsLongAsTheirCall) {
  const auto held = [&] { return device_->ledger().now(device_->kind()); };
  const int64_t before = held();
  Pending pending = group_.start_all_reduce(tensor(contribution(rank_, size_)));
  if (size_ > 0 && ranks_ > 1) {
    EXPECT_GT(held(), before) << "the call has no tensor left to work on";
  }
  pending.wait();
  pending = {};
  group_.all_reduce(tensor(contribution(rank_, size_)));
  EXPECT_EQ(held(), before) << "a call that is over keeps its tensors";
}

TEST_P(GroupTest, DroppedPendingFinishesInTheBackground) {
  const Tensor x = tensor(contribution(rank_, size_));
  { const Pending dropped = group_.start_all_reduce(x); }
  const Tensor y = tensor(contribution(rank_, size_));
  group_.all_reduce(y);
  group_.barrier();
  // The next operations on the device advance the first.
  const Tensor other = Tensor::zeros(y.device(), {1}, Dtype::f32);
  for (int i = 0; i < 1000000 && values(x) != reduction(size_, ReduceOp::sum); ++i) ops::fill_(other, 0);
  EXPECT_EQ(values(x), reduction(size_, ReduceOp::sum));
}

// Groups of a 2-D mesh communicate at the same time, each among its own.
TEST_P(GroupTest, SubGroups) {
  const int rows = ranks_ % 2 == 0 ? 2 : 1;
  const Mesh mesh(world_, {{"row", rows}, {"column", 0}});
  for (const char* name : {"row", "column"}) {
    const Group& group = mesh[name];
    const Tensor x = tensor(Values(size_, static_cast<float>(rank_)));
    group.all_reduce(x);
    float sum = 0;
    for (const int member : group.members()) sum += static_cast<float>(member);
    EXPECT_EQ(values(x), Values(size_, sum)) << name;
    EXPECT_EQ(group.members()[group.rank()], rank_);
  }
}

inline auto group_cases(const std::string& name, CollectivesFactory (*make)()) {
  return testing::Combine(testing::Values(Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i32),
                          testing::Values(0, 1, 3, 1000), testing::Values(Carrier{name, make}));
}

inline std::string group_case_name(const testing::TestParamInfo<GroupCase>& info) {
  const auto& [dtype, size, carrier] = info.param;
  return fmt::format("{}_{}_{}", carrier.name, name_of(dtype), size);
}

}  // namespace ninefold
