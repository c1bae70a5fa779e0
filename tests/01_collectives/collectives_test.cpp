// Groups on the collectives of this chapter: everything that groups promise, and books that are exact.
#include "01_collectives/collectives.h"

#include "tests/support/group_cases.h"

namespace ninefold {
namespace {

INSTANTIATE_TEST_SUITE_P(Ours, GroupTest, group_cases("ours", collectives::ours), group_case_name);
INSTANTIATE_TEST_SUITE_P(Ordered, GroupTest, group_cases("ordered", collectives::ordered), group_case_name);

class Books : public testing::TestWithParam<Carrier> {
 protected:
  Tensor zeros(int64_t size) const { return Tensor::zeros(device_, {size}, Dtype::f32); }
  TrafficEntry entry(Operation operation) { return world_.traffic().entry("world", operation); }

  DeviceHandle device_ = make_cpu_device();
  World world_{{.device = device_, .timeout = 20}, GetParam().make()};
  Group group_ = world_.group();
  int ranks_ = group_.size();
};

// Where the ranks divide the elements, large collectives send exactly the bandwidth-optimal formula.
TEST_P(Books, LargeCollectivesSendWhatTheFormulaSays) {
  const int64_t part = 30000, whole = part * ranks_;
  group_.all_reduce(zeros(whole));
  group_.all_gather(zeros(whole), zeros(part));
  group_.reduce_scatter(zeros(part), zeros(whole));
  group_.all_to_all(zeros(whole), zeros(whole));
  EXPECT_EQ(entry(Operation::all_reduce).bytes, formula::all_reduce_bytes(ranks_, whole, Dtype::f32));
  EXPECT_EQ(entry(Operation::all_gather).bytes, formula::all_gather_bytes(ranks_, whole, Dtype::f32));
  EXPECT_EQ(entry(Operation::reduce_scatter).bytes, formula::reduce_scatter_bytes(ranks_, whole, Dtype::f32));
  EXPECT_EQ(entry(Operation::all_to_all).bytes, formula::all_to_all_bytes(ranks_, whole, Dtype::f32));
  EXPECT_FALSE(entry(Operation::all_reduce).by_formula);
  EXPECT_GT(entry(Operation::all_reduce).messages, 0);
}

// What a meta tensor books by volume() is what a real one sends.
TEST_P(Books, MetaTensorsBookWhatWouldBeSent) {
  const DeviceHandle meta = make_meta_device();
  for (const int64_t size : {0, 1, 5, 1000, 100003}) {
    world_.traffic().clear();
    group_.all_reduce(zeros(size));
    const TrafficEntry sent = entry(Operation::all_reduce);
    world_.traffic().clear();
    group_.all_reduce(Tensor::empty(meta, {size}, Dtype::f32));
    EXPECT_EQ(entry(Operation::all_reduce).bytes, sent.bytes) << size;
    EXPECT_EQ(entry(Operation::all_reduce).messages, sent.messages) << size;
  }
}

// More calls than tags, and more at once than lanes.
TEST_P(Books, ManyCallsInFlight) {
  std::vector<Tensor> tensors;
  std::vector<Pending> pending;
  for (int i = 0; i < 50; ++i) {
    tensors.push_back(Tensor::from(device_, {1000}, std::vector<float>(1000, static_cast<float>(i + group_.rank()))));
    pending.push_back(group_.start_all_reduce(tensors.back()));
  }
  for (int i = 49; i >= 0; --i) {
    pending[i].wait();
    const float sum = static_cast<float>(i * ranks_ + ranks_ * (ranks_ - 1) / 2);
    EXPECT_EQ(tensors[i].to_vector<float>(), std::vector<float>(1000, sum));
  }
}

INSTANTIATE_TEST_SUITE_P(Carriers, Books,
                         testing::Values(Carrier{"ours", collectives::ours}, Carrier{"ordered", collectives::ordered}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ninefold
