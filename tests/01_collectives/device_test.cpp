// Groups whose tensors are where the host does not reach them, as on a GPU: by way of the host's memory, and on NCCL.
// What NCCL would do is done by tests/support/fake_nccl.
#include <algorithm>

#include "01_collectives/collectives.h"
#include "common/comm/mpi/job.h"
#include "common/comm/traffic.h"
#include "tests/support/fake_nccl/fake_nccl.h"
#include "tests/support/group_cases.h"

namespace ninefold {
namespace {

DeviceHandle make_gpu() { return make_cuda_device(0); }
CollectivesFactory nccl() { return nccl_collectives(collectives::ours()); }

INSTANTIATE_TEST_SUITE_P(Device, GroupTest,
                         testing::Combine(testing::Values(Dtype::f32, Dtype::bf16), testing::Values(0, 3, 1000),
                                          testing::Values(Carrier{"ours", collectives::ours, make_gpu},
                                                          Carrier{"ordered", collectives::ordered, make_gpu},
                                                          Carrier{"mpi", mpi_collectives, make_gpu},
                                                          Carrier{"nccl", nccl, make_gpu})),
                         group_case_name);

class DeviceGroup : public testing::Test {
 protected:
  Tensor filled(int64_t size, float value) const {
    return Tensor::from(device_, {size}, std::vector<float>(static_cast<size_t>(size), value));
  }
  DeviceHandle device_ = make_gpu();
};

// What is sent by way of the host is what would be sent from there, in place or not, and the books know the copies.
TEST_F(DeviceGroup, ByWayOfTheHostTheSameIsSent) {
  if (job_size() == 1) return;
  for (const auto make : {collectives::ours, collectives::ordered, mpi_collectives}) {
    World world({.device = device_, .timeout = 20}, make()),
        on_host({.device = make_cpu_device(), .timeout = 20}, make());
    const int64_t part = 30000, whole = part * world.size();
    const auto send = [&](World& where) {
      const DeviceHandle& device = where.device();
      const Tensor large = Tensor::zeros(device, {whole}, Dtype::f32),
                   small = Tensor::zeros(device, {part}, Dtype::f32);
      const Tensor own = large.slice(where.rank() * part, {part});
      where.group().all_reduce(large);
      where.group().all_gather(large, own);
      where.group().all_gather(large, small);
      where.group().reduce_scatter(own, large);
      where.group().reduce_scatter(small, large);
      where.group().all_to_all(Tensor::zeros(device, {whole}, Dtype::f32), large);
    };
    send(world);
    send(on_host);
    for (const Operation operation :
         {Operation::all_reduce, Operation::all_gather, Operation::reduce_scatter, Operation::all_to_all}) {
      const TrafficEntry here = world.traffic().entry("world", operation);
      const TrafficEntry there = on_host.traffic().entry("world", operation);
      EXPECT_EQ(here.bytes, there.bytes) << name_of(operation);
      EXPECT_EQ(here.messages, there.messages) << name_of(operation);
    }
    EXPECT_GE(device_->ledger().peak(MemoryKind::communication), whole * 4);
    EXPECT_EQ(device_->ledger().now(MemoryKind::communication), 0);
  }
}

TEST_F(DeviceGroup, NcclCarriesItAndIsBookedByFormula) {
  if (job_size() == 1) return;
  World world({.device = device_, .timeout = 20}, nccl());
  const int ranks = world.size();
  const int64_t before = fake_nccl::operations(), whole = 1000 * ranks;
  world.group().all_reduce(filled(whole, 1));
  EXPECT_EQ(fake_nccl::operations(), before + 1);
  const TrafficEntry entry = world.traffic().entry("world", Operation::all_reduce);
  EXPECT_TRUE(entry.by_formula);
  EXPECT_EQ(entry.bytes, formula::all_reduce_bytes(ranks, whole, Dtype::f32));
  EXPECT_EQ(entry.bytes, world.group().all_reduce_volume(whole, Dtype::f32).bytes);
}

// Each waits only for the last one: the device waits for the others.
TEST_F(DeviceGroup, NcclIsNotWaitedForOnTheHost) {
  if (job_size() == 1) return;
  World world({.device = device_, .timeout = 20}, nccl());
  std::vector<Tensor> tensors;
  std::vector<Pending> pending;
  for (int i = 0; i < 20; ++i) {
    tensors.push_back(filled(1000, static_cast<float>(i)));
    pending.push_back(world.group().start_all_reduce(tensors.back()));
  }
  for (int i = 19; i >= 0; --i) {
    pending[static_cast<size_t>(i)].wait();
    EXPECT_EQ(values(tensors[static_cast<size_t>(i)]), Values(1000, static_cast<float>(i * world.size())));
  }
}

// Every rank sends to every other one and receives in another order than they send, both ways at once: on one stream
// a pair, started as they are called, these would wait for each other.
TEST_F(DeviceGroup, NcclMessagesMeetInAnyOrder) {
  World world({.device = device_, .timeout = 20}, nccl());
  const Group& group = world.group();
  constexpr int tags = 3;
  std::vector<Pending> sends, receives;
  std::vector<std::tuple<int, int, Tensor>> received;
  for (int peer = 0; peer < group.size(); ++peer) {
    if (peer == group.rank()) continue;
    for (int tag = 0; tag < tags; ++tag) {
      sends.push_back(group.start_send(filled(500, static_cast<float>(100 * group.rank() + tag)), peer, tag));
    }
  }
  for (int peer = group.size() - 1; peer >= 0; --peer) {
    if (peer == group.rank()) continue;
    for (int tag = tags - 1; tag >= 0; --tag) {
      const Tensor x = filled(500, -1);
      received.emplace_back(peer, tag, x);
      group.recv(x, peer, tag);
      EXPECT_EQ(values(x), Values(500, static_cast<float>(100 * peer + tag))) << "from " << peer << ", tag " << tag;
    }
  }
  for (Pending& send : sends) send.wait();
}

// Whichever is looked after first: those asked for last, here.
TEST_F(DeviceGroup, NcclMessagesOfOneTagKeepTheirOrder) {
  const std::unique_ptr<Transport> transport = mpi::world_transport(/*synchronous_sends=*/false);
  World world({.device = device_, .timeout = 20}, nccl());
  if (world.size() == 1) return;
  const std::unique_ptr<Collectives> collectives = nccl()(*transport);
  const int rank = transport->rank(), peer = 1 - rank;
  for (int sender = 0; sender < 2 && rank < 2; ++sender) {
    std::vector<Tensor> tensors;
    std::vector<std::shared_ptr<Work>> works;
    for (int i = 0; i < 4; ++i) {
      const Tensor& x = tensors.emplace_back(filled(100, rank == sender ? static_cast<float>(i) : -1.0f));
      works.push_back(collectives->start(rank == sender
                                             ? Call{.operation = Operation::send, .in = x, .peer = peer, .tag = 5}
                                             : Call{.operation = Operation::recv, .out = x, .peer = peer, .tag = 5}));
    }
    while (!works.empty()) {
      for (size_t i = works.size(); i-- > 0;) {
        if (works[i] && works[i]->step()) works[i].reset();
      }
      if (std::all_of(works.begin(), works.end(), [](const auto& work) { return !work; })) works.clear();
    }
    for (int i = 0; i < 4; ++i) EXPECT_EQ(values(tensors[static_cast<size_t>(i)]), Values(100, static_cast<float>(i)));
  }
}

TEST_F(DeviceGroup, NcclMessagesOfAnotherLengthAreAnError) {
  if (job_size() == 1) return;
  World world({.device = device_, .timeout = 20}, nccl());
  if (world.rank() > 1) return;
  Pending pending = world.rank() == 0 ? world.group().start_send(filled(3, 0), 1) : Pending();
  if (world.rank() == 1) pending = world.group().start_recv(filled(5, 0), 0);
  const auto wait = [&] {
    pending.wait();
    world.wait_for_all();
  };
  EXPECT_THROW(wait(), Error);
}

// An old NCCL does not let ranks share a GPU: then tensors go by way of the host. A new one does.
TEST_F(DeviceGroup, RanksThatShareAGpuNeedANewNccl) {
  if (job_size() == 1) return;
  for (const int version : {22809, 23000}) {
    fake_nccl::claim(version, /*ranks_share_a_gpu=*/true);
    World world({.device = device_, .timeout = 20}, nccl());
    const int64_t before = fake_nccl::operations();
    const Tensor x = filled(100, 1);
    world.group().all_reduce(x);
    EXPECT_EQ(values(x), Values(100, static_cast<float>(world.size())));
    EXPECT_EQ(fake_nccl::operations() - before, version < 23000 ? 0 : 1);
  }
  fake_nccl::claim(22809, false);
}

}  // namespace
}  // namespace ninefold
