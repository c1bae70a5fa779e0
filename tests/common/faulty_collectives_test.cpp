// Each fault really breaks what it says, so that a check which passes under it is proven blind.
#include "tests/support/faulty_collectives.h"

#include <gtest/gtest.h>

#include "common/comm/world.h"

namespace ninefold {
namespace {

using Values = std::vector<float>;

class Faulty {
 public:
  explicit Faulty(CollectiveFault fault)
      : world_({.device = device_, .timeout = 20}, faulty_collectives(mpi_collectives(), fault)) {}

  // Rank r contributes r + 1, scaled.
  Values all_reduce(ReduceOp op = ReduceOp::sum, float scale = 1) {
    const Tensor x = Tensor::from(device_, {1}, Values{scale * static_cast<float>(world_.rank() + 1)});
    world_.group().all_reduce(x, op);
    return x.to_vector<float>();
  }
  Values all_gather() {
    const Tensor out = Tensor::zeros(device_, {world_.size()}, Dtype::f32);
    world_.group().all_gather(out, Tensor::from(device_, {1}, Values{static_cast<float>(world_.rank() + 1)}));
    return out.to_vector<float>();
  }
  // Element j of every rank's input is j + 1.
  float reduce_scatter() {
    Values parts(world_.size());
    for (int i = 0; i < world_.size(); ++i) parts[i] = static_cast<float>(i + 1);
    const Tensor out = Tensor::zeros(device_, {1}, Dtype::f32);
    world_.group().reduce_scatter(out, Tensor::from(device_, {world_.size()}, parts));
    return out.to_vector<float>()[0];
  }
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  // 1 + 2 + … + n
  float sum(int n) const { return static_cast<float>(n * (n + 1) / 2); }

 private:
  DeviceHandle device_ = make_cpu_device();
  World world_;
};

TEST(FaultyCollectives, ScaleByTwo) {
  Faulty faulty(CollectiveFault::scale_by_two);
  EXPECT_EQ(faulty.all_reduce(), Values{2 * faulty.sum(faulty.size())});
}

TEST(FaultyCollectives, DivideTwice) {
  Faulty faulty(CollectiveFault::divide_twice);
  const float inverse = 1.0f / static_cast<float>(faulty.size());
  EXPECT_EQ(faulty.all_reduce(ReduceOp::avg), Values{faulty.sum(faulty.size()) * inverse * inverse});
}

TEST(FaultyCollectives, DropOneRank) {
  Faulty faulty(CollectiveFault::drop_one_rank);
  EXPECT_EQ(faulty.all_reduce(), Values{faulty.sum(faulty.size() - 1)});
  EXPECT_EQ(faulty.all_gather().back(), 0);
}

TEST(FaultyCollectives, StaleBuffer) {
  Faulty faulty(CollectiveFault::stale_buffer);
  const float sum = faulty.sum(faulty.size());
  EXPECT_EQ(faulty.all_reduce(ReduceOp::sum, 1), Values{sum});
  EXPECT_EQ(faulty.all_reduce(ReduceOp::sum, 10), Values{sum});
  EXPECT_EQ(faulty.all_reduce(ReduceOp::sum, 100), Values{10 * sum});
}

TEST(FaultyCollectives, WrongGroup) {
  Faulty faulty(CollectiveFault::wrong_group);
  const float own = static_cast<float>(faulty.rank() + 1);
  EXPECT_EQ(faulty.all_reduce(), Values{own});
  EXPECT_EQ(faulty.all_gather(), Values(faulty.size(), own));
}

TEST(FaultyCollectives, ReorderSums) {
  Faulty faulty(CollectiveFault::reorder_sums);
  EXPECT_EQ(faulty.all_reduce(), Values{faulty.sum(faulty.size())});
  EXPECT_EQ(faulty.reduce_scatter(), static_cast<float>((faulty.rank() + 1) * faulty.size()));
}

TEST(FaultyCollectives, ReorderChunks) {
  Faulty faulty(CollectiveFault::reorder_chunks);
  EXPECT_EQ(faulty.all_gather()[0], 2);
  EXPECT_EQ(faulty.all_gather().back(), 1);
  EXPECT_EQ(faulty.reduce_scatter(), static_cast<float>(((faulty.rank() + 1) % faulty.size() + 1) * faulty.size()));
}

}  // namespace
}  // namespace ninefold
