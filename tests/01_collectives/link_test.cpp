// The line through measured times, and its description.
#include "01_collectives/benchmark/link.h"

#include <gtest/gtest.h>

#include "common/base/check.h"

namespace ninefold::collectives {
namespace {

constexpr Link truth = {.bandwidth = 2e9, .latency = 3e-6};

std::vector<MessageTime> exact_times() {
  std::vector<MessageTime> times;
  for (int64_t bytes = 4; bytes <= 1 << 26; bytes *= 4) {
    times.push_back({bytes, truth.latency + static_cast<double>(bytes) / truth.bandwidth});
  }
  return times;
}

TEST(FitLink, FindsTheLineOfExactTimes) {
  const Link link = fit_link(exact_times());
  EXPECT_NEAR(link.latency, truth.latency, 1e-9 * truth.latency);
  EXPECT_NEAR(link.bandwidth, truth.bandwidth, 1e-9 * truth.bandwidth);
}

TEST(FitLink, IsHardlyMovedByAFewWrongTimes) {
  std::vector<MessageTime> times = exact_times();
  times[2].seconds *= 20;
  times[7].seconds *= 3;
  times.back().seconds *= 5;
  const Link link = fit_link(times);
  EXPECT_NEAR(link.latency, truth.latency, 1e-3 * truth.latency);
  EXPECT_NEAR(link.bandwidth, truth.bandwidth, 1e-3 * truth.bandwidth);
}

TEST(FitLink, GivesNoNegativeLatency) {
  const Link link = fit_link({{1000, 1e-6}, {2000, 4e-6}, {4000, 10e-6}});
  EXPECT_EQ(link.latency, 0);
  EXPECT_GT(link.bandwidth, 0);
}

TEST(FitLink, RefusesTimesThatDoNotGrow) { EXPECT_THROW(fit_link({{4, 3e-6}, {16, 2e-6}, {64, 1e-6}}), UserError); }

TEST(FitLink, IsDescribedAsClusterReadsIt) {
  for (const Link& link : {truth, Link{.bandwidth = 123456789, .latency = 0}, Link{.bandwidth = 3e13, .latency = 2}}) {
    const Cluster cluster = Cluster::parse(description_of("tp", link));
    EXPECT_NEAR(cluster.links.at("tp").bandwidth, link.bandwidth, 1e-3 * link.bandwidth);
    EXPECT_NEAR(cluster.links.at("tp").latency, link.latency, 1e-3 * link.latency);
  }
}

}  // namespace
}  // namespace ninefold::collectives
