// Groups on MPI's own collectives, and what a group refuses.
#include "tests/support/group_cases.h"

namespace ninefold {
namespace {

INSTANTIATE_TEST_SUITE_P(Mpi, GroupTest, group_cases("mpi", mpi_collectives), group_case_name);

class GroupRules : public testing::Test {
 protected:
  DeviceHandle device_ = make_cpu_device();
  World world_{{.device = device_, .timeout = 20}, mpi_collectives()};
  Group group_ = world_.group();
};

TEST_F(GroupRules, ShapesThatDoNotFitAreRefused) {
  const int ranks = group_.size();
  const Tensor one = Tensor::zeros(device_, {1}, Dtype::f32);
  const Tensor wrong = Tensor::zeros(device_, {ranks + 1}, Dtype::f32);
  const Tensor integers = Tensor::zeros(device_, {ranks}, Dtype::i32);
  EXPECT_THROW(group_.all_gather(wrong, one), Error);
  EXPECT_THROW(group_.all_gather(integers, one), Error);
  EXPECT_THROW(group_.reduce_scatter(one, wrong), Error);
  EXPECT_THROW(group_.all_reduce(integers, ReduceOp::avg), Error);
  EXPECT_THROW(group_.broadcast(one, ranks), Error);
  EXPECT_THROW(group_.send(one, group_.rank()), Error);
  EXPECT_THROW(group_.all_to_all(wrong, wrong, std::vector<int64_t>(ranks, 1), std::vector<int64_t>(ranks, 1)), Error);
}

// Even a tiny message, which MPI would buffer, is on its way until the peer receives it.
TEST(SynchronousSends, CompleteOnlyWhenReceived) {
  const DeviceHandle device = make_cpu_device();
  World world({.device = device, .timeout = 20, .synchronous_sends = true}, mpi_collectives());
  if (world.size() == 1) return;
  const Tensor x = Tensor::zeros(device, {1}, Dtype::f32);
  Pending send;
  if (world.rank() == 0) {
    send = world.group().start_send(x, 1);
    for (int i = 0; i < 100; ++i) ASSERT_FALSE(send.test());
  }
  world.group().barrier();
  if (world.rank() == 1) world.group().recv(x, 0);
  send.wait();
}

TEST_F(GroupRules, AMessageOfAnotherLengthIsAnError) {
  if (group_.size() == 1) return;
  if (group_.rank() == 0) group_.send(Tensor::zeros(device_, {3}, Dtype::f32), 1);
  if (group_.rank() == 1) {
    EXPECT_THROW(group_.recv(Tensor::zeros(device_, {5}, Dtype::f32), 0), Error);
  }
  group_.barrier();
}

}  // namespace
}  // namespace ninefold
