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

// Asks for an algorithm anew whenever the question is another than the last one for the operation.
class LastChoice : public testing::Test {
 protected:
  using Values = std::vector<float>;
  Tensor filled(int64_t size, float value) const { return Tensor::from(device_, {size}, Values(size, value)); }
  // Bytes that this rank sends for an all_reduce of ones in place or not, whose result is right.
  int64_t bytes_of_all_reduce(int64_t size, bool in_place) {
    world_.traffic().clear();
    const Tensor in = filled(size, 1), out = in_place ? in : filled(size, -77);
    group_.all_reduce(out, in);
    EXPECT_EQ(out.to_vector<float>(), Values(size, static_cast<float>(group_.size())));
    if (!in_place) {
      EXPECT_EQ(in.to_vector<float>(), Values(size, 1)) << "the input has changed";
    }
    return world_.traffic().entry("world", Operation::all_reduce).bytes;
  }

  int asked_ = 0;
  DeviceHandle device_ = make_cpu_device();
  World world_{{.device = device_, .timeout = 20},
               collectives::chosen_by([this](Operation operation, int64_t bytes, int) {
                 ++asked_;
                 const char* all_reduce = bytes < 1000 ? "ordered" : "ring";
                 return operation == Operation::all_reduce
                            ? collectives::Choice{&collectives::find_algorithm(operation, all_reduce), 1 << 20}
                            : collectives::fastest(operation, bytes, 8);
               })};
  Group group_ = world_.group();
};

TEST_F(LastChoice, IsTakenForTheSameQuestionOnly) {
  const int64_t small = 24, large = 2400;
  const int64_t small_bytes = bytes_of_all_reduce(small, true);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(bytes_of_all_reduce(small, true), small_bytes);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(bytes_of_all_reduce(large, true), formula::all_reduce_bytes(group_.size(), large, Dtype::f32));
  EXPECT_EQ(bytes_of_all_reduce(small, false), small_bytes);
  EXPECT_EQ(bytes_of_all_reduce(small, true), small_bytes);
  EXPECT_EQ(asked_, 4);
}

TEST_F(LastChoice, BelongsToItsOperationAndRoot) {
  for (int root = 0; root < group_.size(); ++root) {
    const Tensor x = filled(5, static_cast<float>(group_.rank()));
    group_.broadcast(x, root);
    EXPECT_EQ(x.to_vector<float>(), Values(5, static_cast<float>(root)));
    const Tensor ones = filled(5, 1);
    group_.reduce(ones, root);
    EXPECT_EQ(ones.to_vector<float>(), Values(5, group_.rank() == root ? static_cast<float>(group_.size()) : 1));
  }
}

}  // namespace
}  // namespace ninefold
