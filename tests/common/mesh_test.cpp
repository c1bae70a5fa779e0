#include "common/comm/mesh.h"

#include <gtest/gtest.h>

#include <malloc.h>

#include "common/comm/control.h"

namespace ninefold {
namespace {

class MeshTest : public testing::Test {
 protected:
  // The sentence with which the mesh is refused.
  std::string refusal(std::vector<MeshDimension> dimensions) {
    try {
      const Mesh mesh(world_, std::move(dimensions));
    } catch (const UserError& error) {
      return error.what();
    }
    return "no refusal";
  }

  World world_{{.device = make_cpu_device(), .timeout = 20}, mpi_collectives()};
  int ranks_ = world_.size();
};

TEST_F(MeshTest, TheLastDimensionVariesFastest) {
  if (ranks_ != 4) return;
  const Mesh mesh(world_, {{"pp", 2}, {"cp", 1}, {"tp", 2}});
  EXPECT_EQ(mesh.coordinate("pp"), world_.rank() / 2);
  EXPECT_EQ(mesh.coordinate("tp"), world_.rank() % 2);
  EXPECT_EQ(mesh["tp"].members(), (std::vector<int>{world_.rank() / 2 * 2, world_.rank() / 2 * 2 + 1}));
  EXPECT_EQ(mesh["pp"].members(), (std::vector<int>{world_.rank() % 2, world_.rank() % 2 + 2}));
  EXPECT_EQ(mesh["cp"].members(), std::vector<int>{world_.rank()});
  EXPECT_EQ(mesh["tp"].name(), "tp");
  EXPECT_EQ(to_string(mesh), "pp(2) x tp(2)");
}

TEST_F(MeshTest, AutoTakesWhatIsLeft) {
  const Mesh mesh(world_, {{"dp_replicate", 0}, {"tp", 1}});
  EXPECT_EQ(mesh.size("dp_replicate"), ranks_);
  EXPECT_EQ(mesh["dp_replicate"].rank(), world_.rank());
  EXPECT_TRUE(mesh.has("tp"));
  EXPECT_FALSE(mesh.has("ep"));
  EXPECT_THROW(mesh["ep"], Error);
}

TEST_F(MeshTest, AMeshThatDoesNotFitSaysTheWholeEquation) {
  EXPECT_EQ(refusal({{"pp", 2}, {"dp_shard", 3}, {"cp", 1}, {"tp", 2}}),
            fmt::format("pp(2) x dp_shard(3) x tp(2) = 12 ranks, but the job has {}", ranks_));
  EXPECT_EQ(refusal({{"pp", 5}, {"dp_shard", 0}}),
            fmt::format("pp(5) x dp_shard(auto) needs a multiple of 5 ranks, but the job has {}", ranks_));
  EXPECT_EQ(refusal({{"pp", 0}, {"tp", 0}}), "pp and tp are both auto: give one of them a size");
  EXPECT_EQ(refusal({{"pp", -1}, {"tp", 0}}), "pp (-1) must be at least 1, or auto");
  EXPECT_EQ(refusal({{"pp", 65536}, {"tp", 65536}}),
            fmt::format("pp(65536) x tp(65536) = 4294967296 ranks, but the job has {}", ranks_));
}

// Communicators are a scarce resource: each mesh gives its own back.
TEST_F(MeshTest, ManyMeshesOneAfterAnother) {
  size_t after_some = 0;  // bytes in use on the heap
  for (int i = 0; i < 3000; ++i) {
    const Mesh mesh(world_, {{"dp_replicate", 0}});
    if (i % 1000 == 0) {
      EXPECT_EQ(control::sum(mesh["dp_replicate"], 1), ranks_);
    }
    if (i == 500) after_some = mallinfo2().uordblks;
  }
  EXPECT_LT(mallinfo2().uordblks, after_some + 1000000);
}

TEST_F(MeshTest, HostValues) {
  const Group& group = world_.group();
  const int rank = group.rank();
  EXPECT_EQ(control::sum(group, 0.5 + rank), 0.5 * ranks_ + ranks_ * (ranks_ - 1) / 2);
  EXPECT_EQ(control::max(group, -rank), 0);
  EXPECT_TRUE(control::all_true(group, true));
  EXPECT_FALSE(control::all_true(group, rank != ranks_ - 1));
  EXPECT_EQ(control::broadcast(group, std::vector<int>{rank, 7}, ranks_ - 1), (std::vector<int>{ranks_ - 1, 7}));
  EXPECT_EQ(control::broadcast_bytes(group, ""), "");

  const std::vector<std::string> gathered = control::gather_bytes(group, std::string(rank, 'x'));
  ASSERT_EQ(gathered.size(), static_cast<size_t>(rank == 0 ? ranks_ : 0));
  for (size_t i = 0; i < gathered.size(); ++i) EXPECT_EQ(gathered[i], std::string(i, 'x'));
}

}  // namespace
}  // namespace ninefold
