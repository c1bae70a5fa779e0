#include "common/comm/traffic.h"

#include <gtest/gtest.h>

#include "common/comm/control.h"
#include "common/comm/world.h"

namespace ninefold {
namespace {

class TrafficTest : public testing::Test {
 protected:
  Tensor zeros(int64_t size, Dtype dtype = Dtype::f32) { return Tensor::zeros(device_, {size}, dtype); }
  TrafficEntry entry(Operation operation) { return world_.traffic().entry("world", operation); }

  DeviceHandle device_ = make_cpu_device();
  World world_{{.device = device_, .timeout = 20}, mpi_collectives()};
  Group group_ = world_.group();
  int ranks_ = group_.size();
};

TEST_F(TrafficTest, FormulasPadToWholeParts) {
  EXPECT_EQ(formula::all_reduce_bytes(4, 8, Dtype::f32), 2 * 3 * 2 * 4);
  EXPECT_EQ(formula::all_reduce_bytes(4, 9, Dtype::f32), 2 * 3 * 3 * 4);
  EXPECT_EQ(formula::all_gather_bytes(3, 6, Dtype::bf16), 2 * 2 * 2);
  EXPECT_EQ(formula::reduce_scatter_bytes(3, 6, Dtype::i32), 2 * 2 * 4);
  EXPECT_EQ(formula::all_reduce_bytes(1, 9, Dtype::f32), 0);
}

TEST_F(TrafficTest, CollectivesAreBookedByFormula) {
  group_.all_reduce(zeros(10));
  group_.all_reduce(zeros(10, Dtype::bf16));
  group_.all_gather(zeros(3 * ranks_), zeros(3));
  group_.reduce_scatter(zeros(3), zeros(3 * ranks_));
  group_.broadcast(zeros(3), 0);
  const bool sends = ranks_ > 1;
  EXPECT_EQ(entry(Operation::all_reduce).calls, sends ? 2 : 0);
  EXPECT_EQ(entry(Operation::all_reduce).bytes,
            group_.all_reduce_volume(10, Dtype::f32).bytes + group_.all_reduce_volume(10, Dtype::bf16).bytes);
  EXPECT_EQ(entry(Operation::all_reduce).by_formula, sends);
  EXPECT_EQ(entry(Operation::all_gather).bytes, (ranks_ - 1) * 3 * 4);
  // Everyone's whole goes up a tree to rank 0, which sends each its part.
  EXPECT_EQ(entry(Operation::reduce_scatter).bytes, (group_.rank() == 0 ? ranks_ - 1 : ranks_) * 3 * 4);
  EXPECT_EQ(entry(Operation::broadcast).bytes, group_.rank() == 0 ? (ranks_ - 1) * 3 * 4 : 0);
}

TEST_F(TrafficTest, UnevenAllToAllLeavesTheOwnPartOut) {
  std::vector<int64_t> rows(ranks_);
  for (int i = 0; i < ranks_; ++i) rows[i] = group_.rank() + i;
  int64_t in_rows = 0;
  for (const int64_t count : rows) in_rows += count;
  group_.all_to_all(Tensor::zeros(device_, {in_rows, 2}, Dtype::f32), Tensor::zeros(device_, {in_rows, 2}, Dtype::f32),
                    rows, rows);
  const int64_t expected = ranks_ == 1 ? 0 : (in_rows - 2 * group_.rank()) * 2 * 4;
  EXPECT_EQ(entry(Operation::all_to_all).bytes, expected);
}

TEST_F(TrafficTest, MessagesAreMeasured) {
  if (ranks_ == 1) return;
  if (group_.rank() == 0) group_.send(zeros(5), 1);
  if (group_.rank() == 1) group_.recv(zeros(5), 0);
  const TrafficEntry sent = entry(Operation::send);
  EXPECT_EQ(sent.calls, group_.rank() == 0 ? 1 : 0);
  EXPECT_EQ(sent.messages, group_.rank() == 0 ? 1 : 0);
  EXPECT_EQ(sent.bytes, group_.rank() == 0 ? 20 : 0);
  EXPECT_FALSE(sent.by_formula);
  EXPECT_EQ(entry(Operation::recv).calls, 0);
}

TEST_F(TrafficTest, HostValuesAreBookedApart) {
  control::sum(group_, 1);
  group_.barrier();
  EXPECT_TRUE(world_.traffic().techniques().empty());
  if (ranks_ == 1) return;
  const TrafficEntry control = world_.traffic().control().at("world");
  EXPECT_EQ(control.calls, 2);
  EXPECT_GT(control.bytes, 0);
}

TEST_F(TrafficTest, PredictionsStandBesideMeasurements) {
  const Volume each = group_.all_reduce_volume(10, Dtype::f32);
  if (ranks_ > 1) world_.traffic().predict("world", Operation::all_reduce, 2, each);
  group_.all_reduce(zeros(10));
  group_.all_reduce(zeros(10));
  const TrafficEntry booked = entry(Operation::all_reduce);
  EXPECT_EQ(booked.predicted_calls, booked.calls);
  EXPECT_EQ(booked.predicted_messages, booked.messages);
  EXPECT_EQ(booked.predicted_bytes, booked.bytes);
  EXPECT_TRUE(booked.is_as_predicted());
  EXPECT_EQ(booked.messages > 0, ranks_ > 1);
  if (ranks_ > 1) world_.traffic().predict("world", Operation::all_reduce, 0, each);
  EXPECT_TRUE(entry(Operation::all_reduce).is_as_predicted());
  world_.traffic().predict("world", Operation::all_reduce, 1, {.messages = 1, .bytes = 0});
  EXPECT_FALSE(entry(Operation::all_reduce).is_as_predicted());
}

TEST_F(TrafficTest, APauseLeavesCallsOutOfTheBooks) {
  Pending started_before = group_.start_all_reduce(zeros(10));
  {
    const OutsideTheBooks outside(world_);
    group_.all_reduce(zeros(1000));
    control::sum(group_, 1);
    world_.traffic().predict("world", Operation::all_reduce, 1, {.messages = 1, .bytes = 1});
    started_before.wait();
  }
  EXPECT_EQ(entry(Operation::all_reduce).bytes, group_.all_reduce_volume(10, Dtype::f32).bytes);
  EXPECT_EQ(entry(Operation::all_reduce).predicted_bytes, 0);
  EXPECT_TRUE(world_.traffic().control().empty());
}

TEST_F(TrafficTest, MetaTensorsAreOnlyCounted) {
  const DeviceHandle meta = make_meta_device();
  const int64_t huge = int64_t{1} << 40;
  group_.all_reduce(Tensor::empty(meta, {huge}, Dtype::bf16));
  EXPECT_EQ(entry(Operation::all_reduce).bytes, group_.all_reduce_volume(huge, Dtype::bf16).bytes);
  if (ranks_ == 2) {
    EXPECT_EQ(entry(Operation::all_reduce).bytes, 2 * huge);  // up to rank 0, and back
  }
}

// A broadcast written over the transport, in which every message but the first is sent while it is being stepped.
class OneByOneBroadcast : public Work {
 public:
  OneByOneBroadcast(const Call& call, Transport& transport) : call_(call), transport_(transport) {
    if (transport.rank() != call.peer) {
      transfer_ = transport.recv(call.out.raw(), call.out.bytes(), call.peer, first_collective_tag);
    }
  }
  bool step() override {
    if (!transport_.test(transfer_)) return false;
    if (transport_.rank() != call_.peer) return true;
    if (next_ == call_.peer) ++next_;
    if (next_ == transport_.size()) return true;
    transfer_ = transport_.send(call_.in.raw(), call_.in.bytes(), next_++, first_collective_tag);
    return false;
  }

 private:
  Call call_;
  Transport& transport_;
  Transfer transfer_;
  int next_ = 0;
};

class OneByOne : public Collectives {
 public:
  explicit OneByOne(Transport& transport) : transport_(transport) {}
  std::shared_ptr<Work> start(const Call& call) override {
    return std::make_unique<OneByOneBroadcast>(call, transport_);
  }
  Sent volume(const Call&) const override { return {}; }
  bool sends_by_itself(const Call&) const override { return false; }

 private:
  Transport& transport_;
};

TEST(TrafficOverTheTransport, IsCountedWhereItIsSent) {
  const DeviceHandle device = make_cpu_device();
  World world({.device = device, .timeout = 20},
              [](Transport& transport) { return std::make_unique<OneByOne>(transport); });
  const Tensor a = Tensor::from(device, {2}, std::vector<float>{1.0f * world.rank(), 5});
  const Tensor b = Tensor::from(device, {1}, std::vector<float>{10.0f * world.rank()});
  Pending first = world.group().start_broadcast(a, 0);
  first.wait();
  world.group().broadcast(b, world.size() - 1);
  EXPECT_EQ(a.to_vector<float>(), (std::vector<float>{0, 5}));
  EXPECT_EQ(b.to_vector<float>(), std::vector<float>{10.0f * (world.size() - 1)});

  const int64_t others = world.size() - 1;
  const bool first_root = world.rank() == 0, second_root = world.rank() == world.size() - 1;
  const TrafficEntry entry = world.traffic().entry("world", Operation::broadcast);
  EXPECT_EQ(entry.messages, others * (first_root + second_root));
  EXPECT_EQ(entry.bytes, others * (first_root * 8 + second_root * 4));
  EXPECT_FALSE(entry.by_formula);
}

}  // namespace
}  // namespace ninefold
