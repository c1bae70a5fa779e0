// The description of a cluster, right and wrong.
#include "common/comm/cluster.h"

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/comm/mesh.h"
#include "tests/support/temporary_folder.h"

namespace ninefold {
namespace {

TEST(Cluster, IsReadFromALine) {
  const Cluster cluster = Cluster::parse(
      "dp_replicate=10GB/s,5us  tp=450e9B/s,0.002ms compute=50TF/s,memory=1TB/s reduce=100GB/s rendezvous=64kB");
  EXPECT_EQ(cluster.links.at("dp_replicate").bandwidth, 10e9);
  EXPECT_DOUBLE_EQ(cluster.links.at("dp_replicate").latency, 5e-6);
  EXPECT_EQ(cluster.links.at("tp").bandwidth, 450e9);
  EXPECT_DOUBLE_EQ(cluster.links.at("tp").latency, 2e-6);
  EXPECT_EQ(cluster.compute->flops, 50e12);
  EXPECT_EQ(cluster.compute->memory, 1e12);
  EXPECT_EQ(cluster.reduce, 100e9);
  EXPECT_EQ(cluster.rendezvous, 64000);
}

TEST(Cluster, HasDefaults) {
  const Cluster cluster = Cluster::parse("tp=1B/s,0s compute=cpu");
  EXPECT_FALSE(cluster.compute);
  EXPECT_EQ(1 / cluster.reduce, 0);
  EXPECT_EQ(cluster.links.at("tp").latency, 0);
  EXPECT_EQ(1 / Cluster::parse("compute=1GF/s").compute->memory, 0);
}

TEST(Cluster, IsReadFromAFile) {
  const TemporaryFolder folder;
  const Cluster cluster =
      Cluster::parse(folder.write("cluster", "# two machines\npp=1GB/s,20us # Ethernet\n\ncompute=1TF/s\n"));
  EXPECT_EQ(cluster.links.at("pp").bandwidth, 1e9);
  EXPECT_EQ(cluster.compute->flops, 1e12);
}

std::string sentence_about(const std::string& description) {
  try {
    Cluster::parse(description).require_fits({{"dp_replicate", 2}, {"tp", 4}, {"cp", 1}});
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Cluster, IsRefusedWithTheValueTheRuleAndTheFix) {
  const std::string tp = " tp=1GB/s,1us";
  for (const auto& [description, part] : std::vector<std::pair<std::string, std::string>>{
           {"dp=1GB/s,1us" + tp, "dp is no dimension of the mesh; there are dp_replicate, tp, cp"},
           {"dp_replicate=1GB/s,1us", "needs a link for tp(4), such as tp=10GB/s,5us"},
           {"dp_replicate=0GB/s,1us" + tp, "the bandwidth in 'dp_replicate=0GB/s,1us' must be above 0"},
           {"dp_replicate=-1GB/s,1us" + tp, "must be above 0"},
           {"dp_replicate=1GB/s,-1us" + tp, "the latency in 'dp_replicate=1GB/s,-1us' must be at least 0"},
           {"dp_replicate=1Gb/s,1us" + tp, "must have one of the units B/s, kB/s, MB/s, GB/s, TB/s, not 'Gb/s'"},
           {"dp_replicate=1GB/s,1" + tp, "must have one of the units s, ms, us, ns, not ''"},
           {"dp_replicate=fast,1us" + tp,
            "needs a bandwidth, a number with one of B/s, kB/s, MB/s, GB/s, TB/s, not 'fast'"},
           {"dp_replicate=infGB/s,1us" + tp, "not 'infGB/s'"},
           {"dp_replicate=1e999GB/s,1us" + tp, "not '1e999GB/s'"},
           {"dp_replicate=1GB/s" + tp, "needs a bandwidth and a latency, such as dp_replicate=10GB/s,5us"},
           {"tp=2GB/s,1us" + tp, "tp is given twice"},
           {"compute=gpu" + tp, "needs a speed of computing"},
           {"compute=0TF/s" + tp, "must be above 0"},
           {"compute=1TF/s,1TB/s" + tp, "must be compute=cpu or like compute=50TF/s,memory=1TB/s"},
           {"reduce=0GB/s" + tp, "must be above 0"},
           {"rendezvous=64KiB" + tp, "must have one of the units B, kB, MB, GB, not 'KiB'"},
           {"=1GB/s,1us", "is no entry"},
           {"tp=", "is no entry"},
           {"no/such/file", "--cluster no/such/file is no file that can be read"},
           {"", "is no file"}}) {
    EXPECT_NE(sentence_about(description).find(part), std::string::npos)
        << description << ": " << sentence_about(description);
  }
}

}  // namespace
}  // namespace ninefold
