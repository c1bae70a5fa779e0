// The rules of virtual time, one test each, on four ranks with real delays at random. α and β are those of the slow
// link, S / β is a quarter of a second or as it is written.
#include "tests/support/virtual_job.h"

namespace ninefold {
namespace {

constexpr int64_t quarter_bytes = 1 << 18;
constexpr double alpha = slow.latency, quarter = 0.25;

std::vector<MeshDimension> line() { return {{"outer", 4}, {"inner", 1}}; }
std::vector<MeshDimension> square() { return {{"outer", 2}, {"inner", 2}}; }

TEST(Port, SendsOneMessageAfterTheOther) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  job.dawdle();
  if (group.rank() == 0) {
    Pending first = group.start_send(job.tensor(quarter_bytes), 1),
            second = group.start_send(job.tensor(quarter_bytes), 2);
    second.wait();
    EXPECT_DOUBLE_EQ(job.now(), 2 * quarter);
    first.wait();
    EXPECT_DOUBLE_EQ(job.now(), 2 * quarter);
  } else if (group.rank() < 3) {
    group.recv(job.tensor(quarter_bytes), 0);
    EXPECT_DOUBLE_EQ(job.now(), alpha + group.rank() * quarter);
  }
}

TEST(Port, SendsAndReceivesAtOnce) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  const int peer = group.rank() ^ 1;
  Pending send = group.start_send(job.tensor(quarter_bytes), peer);
  job.dawdle();
  group.recv(job.tensor(quarter_bytes), peer);
  send.wait();
  EXPECT_DOUBLE_EQ(job.now(), alpha + quarter);
}

TEST(Port, ReceivesInTheOrderPosted) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  if (group.rank() == 0) {
    Pending from_2 = group.start_recv(job.tensor(quarter_bytes), 2),
            from_1 = group.start_recv(job.tensor(quarter_bytes), 1);
    from_1.wait();  // sent first, but it is behind the other one
    EXPECT_DOUBLE_EQ(job.now(), 1 + alpha + 2 * quarter);
    from_2.wait();
  } else if (group.rank() < 3) {
    job.dawdle();
    job.compute(group.rank() - 1);
    group.send(job.tensor(quarter_bytes), 0);
  }
}

TEST(Port, IsAnotherOneInEveryDimension) {
  VirtualJob job(square());
  const int64_t fast_quarter_bytes = quarter_bytes << 6;
  Pending outer = job.mesh["outer"].start_all_gather(job.tensor(2 * quarter_bytes), job.tensor(quarter_bytes));
  Pending inner =
      job.mesh["inner"].start_all_gather(job.tensor(2 * fast_quarter_bytes), job.tensor(fast_quarter_bytes));
  job.dawdle();
  inner.wait();
  EXPECT_DOUBLE_EQ(job.now(), fast.latency + quarter);
  outer.wait();
  EXPECT_DOUBLE_EQ(job.now(), alpha + quarter);
}

TEST(LinkOfTwoRanks, IsThatOfTheOutermostDimensionInWhichTheyDiffer) {
  VirtualJob job(square());
  const Group& world = job.world.group();
  const double slow_time = slow.latency + quarter, fast_time = fast.latency + quarter / 64;
  for (int receiver = 1; receiver < 4; ++receiver) {  // (0, 1), (1, 0), (1, 1)
    const double before = job.latest();
    job.compute(before - job.now());
    if (world.rank() == 0) world.send(job.tensor(quarter_bytes), receiver);
    if (world.rank() == receiver) world.recv(job.tensor(quarter_bytes), 0);
    EXPECT_DOUBLE_EQ(job.latest(), before + (receiver == 1 ? fast_time : slow_time)) << receiver;
  }
}

TEST(GroupIsAStream, CollectivesFollowEachOther) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  const double one = 3 * (alpha + quarter / 4);  // ring all-gather
  const auto start = [&] { return group.start_all_gather(job.tensor(quarter_bytes), job.tensor(quarter_bytes / 4)); };
  Pending first = start(), second = start();
  job.dawdle();
  second.wait();
  EXPECT_DOUBLE_EQ(job.now(), 2 * one);
  first.wait();
  EXPECT_DOUBLE_EQ(job.now(), 2 * one) << "what has ended costs nothing more";
  job.compute(5);
  start().wait();
  EXPECT_DOUBLE_EQ(job.now(), 2 * one + 5 + one) << "and begins when it is issued";
}

// Not so for messages: they follow the port alone.
TEST(GroupIsAStream, ButNotForMessages) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  // 0 sends to 1 and then to 2, while 1 sends to 3.
  Pending broadcast = group.start_broadcast(job.tensor(quarter_bytes), 0);
  if (group.rank() == 3) {
    Pending send = group.start_send(job.tensor(quarter_bytes), 0);
    job.dawdle();
    send.wait();
    EXPECT_DOUBLE_EQ(job.now(), quarter) << "it does not send in the broadcast, so its port is free";
  }
  if (group.rank() == 0) group.recv(job.tensor(quarter_bytes), 3);
  broadcast.wait();
  const double hops = group.rank() == 0 ? 0 : group.rank() == 3 ? 2 : 1;
  EXPECT_DOUBLE_EQ(job.now(), hops * alpha + 2 * quarter);
}

TEST(GroupsThatShareAPort, UseItInTheOrderIssued) {
  VirtualJob job(line());
  const Group all = job.mesh["outer"];
  const Group pair = job.world.make_group("pair", all.rank() < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
  const double one = 3 * (alpha + quarter / 4), other = alpha + quarter;
  for (const bool pair_first : {false, true}) {
    const double before = job.now();
    const auto start_all = [&] {
      return all.start_all_gather(job.tensor(quarter_bytes), job.tensor(quarter_bytes / 4));
    };
    const auto start_pair = [&] {
      return pair.start_all_gather(job.tensor(2 * quarter_bytes), job.tensor(quarter_bytes));
    };
    Pending first = pair_first ? start_pair() : start_all();
    job.dawdle();
    Pending second = pair_first ? start_all() : start_pair();
    job.dawdle();
    first.wait();
    EXPECT_NEAR(job.now() - before, pair_first ? other : one, 1e-12);
    second.wait();
    // The second begins when it is issued too, but its first message finds the ports busy.
    EXPECT_NEAR(job.now() - before, pair_first ? quarter + one : 3 * (alpha + quarter / 4) + other - alpha, 1e-12);
  }
}

TEST(Rendezvous, WaitsForTheReceiveWhereSmallMessagesDoNot) {
  for (const bool meets : {false, true}) {
    Cluster cluster = test_cluster();
    cluster.rendezvous = meets ? quarter_bytes - 1 : quarter_bytes;
    VirtualJob job(line(), cluster);
    const Group& group = job.mesh["outer"];
    job.dawdle();
    if (group.rank() == 0) {
      group.send(job.tensor(quarter_bytes), 1);
      EXPECT_DOUBLE_EQ(job.now(), meets ? 3 + quarter : quarter);
    } else if (group.rank() == 1) {
      job.compute(3);
      group.recv(job.tensor(quarter_bytes), 0);
      EXPECT_DOUBLE_EQ(job.now(), meets ? 3 + alpha + quarter : 3);
    }
  }
}

TEST(Clock, IsJoinedWithCommunicationByWaitingAlone) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  const double one = 3 * (alpha + quarter / 4);
  Pending gather = group.start_all_gather(job.tensor(quarter_bytes), job.tensor(quarter_bytes / 4));
  job.compute(0.125);
  const Pending barrier = group.start_barrier();  // makes progress, and nobody waits for it
  for (int i = 0; i < 100; ++i) job.world.progress();
  EXPECT_DOUBLE_EQ(job.now(), 0.125);
  gather.wait();
  EXPECT_DOUBLE_EQ(job.now(), one);
  EXPECT_DOUBLE_EQ(job.world.virtual_time()->exposed().at("outer"), one - 0.125);
}

TEST(Clock, ComputesWithTheProcessorTimeOfThisThread) {
  Cluster cluster = test_cluster();
  cluster.compute.reset();
  VirtualJob job(line(), cluster);
  const double before = job.now();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(job.now() - before, 0.1) << "sleeping is not computing";
  const Stopwatch processor(Clock::thread);
  while (processor.seconds() < 0.05) {
  }
  EXPECT_GE(job.now() - before, 0.05);
  const double computed = job.now();
  if (job.world.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  control::sum(job.world.group(), 1);  // the others poll meanwhile
  EXPECT_LT(job.now() - computed, 0.02) << "communicating is not computing";
}

TEST(OutsideTheBooks, TimeStandsStill) {
  VirtualJob job(line());
  const Group& group = job.mesh["outer"];
  Pending before = group.start_all_gather(job.tensor(quarter_bytes), job.tensor(quarter_bytes / 4));
  {
    const OutsideTheBooks outside(job.world);
    job.compute(7);
    group.all_reduce(job.tensor(quarter_bytes));
  }
  control::sum(group, 1);
  EXPECT_EQ(job.now(), 0);
  before.wait();
  EXPECT_DOUBLE_EQ(job.now(), 3 * (alpha + quarter / 4));
}

TEST(Stamps, AreNoTraffic) {
  Volume sent[2];
  for (const bool timed : {false, true}) {
    Cluster cluster = test_cluster();
    cluster.rendezvous = 1024;
    World world({.device = make_cpu_device(), .cluster = timed ? std::optional(cluster) : std::nullopt},
                collectives::ours());
    const Mesh mesh(world, line());
    for (const int64_t elements : {1, 900, 40000}) {  // small enough for one segment
      mesh["outer"].all_reduce(Tensor::zeros(world.device(), {elements}, Dtype::f32));
    }
    const TrafficEntry entry = world.traffic().entry("outer", Operation::all_reduce);
    sent[timed] = {entry.messages, entry.bytes};
  }
  EXPECT_EQ(sent[true], sent[false]);
}

// Everything at once, ten times over: whatever the ranks really do when, the times are the same to the last bit.
TEST(Times, DependOnNothingReal) {
  std::optional<std::vector<double>> first;
  for (int run = 0; run < 10; ++run) {
    Cluster cluster = test_cluster();
    cluster.rendezvous = 4096;
    cluster.reduce = 1e6;
    VirtualJob job(square(), cluster, collectives::ours(), /*synchronous_sends=*/run % 2 == 1);
    std::vector<double> times;
    for (int round = 0; round < 3; ++round) {
      std::vector<Pending> pending;
      const auto start = [&](Pending one) {
        pending.push_back(std::move(one));
        job.dawdle();
        job.compute(1e-3 * (1 + job.world.rank()));
      };
      start(job.mesh["outer"].start_all_reduce(job.tensor(40000)));
      start(job.world.group().start_all_reduce(job.tensor(4000)));
      start(job.mesh["inner"].start_all_reduce(job.tensor(400000)));
      const int peer = 3 - job.world.rank();
      start(job.world.group().start_send(job.tensor(16384), peer));
      start(job.world.group().start_recv(job.tensor(16384), peer));
      start(job.world.group().start_broadcast(job.tensor(1000), 2));
      for (size_t i = pending.size(); i-- > 0;) {
        pending[i].wait();
        times.push_back(job.now());
      }
    }
    if (!first) first = times;
    EXPECT_EQ(times, *first);
  }
}

}  // namespace
}  // namespace ninefold
