// Exchanges as data: what every rank sends arrives, once, at the rank of its expert, in the order that was announced.
#include "08_expert_parallel/exchange.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <tuple>

#include "common/base/check.h"

namespace ninefold {
namespace {

struct Row {
  int source;
  int64_t expert, number;  // the number-th row that the source has for the expert
  bool operator==(const Row&) const = default;
  auto operator<=>(const Row&) const = default;
};

// The rows of a rank before the exchange: by expert.
std::vector<Row> rows_of(const std::vector<int32_t>& counts, int rank, int64_t experts) {
  std::vector<Row> rows;
  for (int64_t expert = 0; expert < experts; ++expert) {
    for (int64_t i = 0; i < counts[static_cast<size_t>(rank * experts + expert)]; ++i)
      rows.push_back({rank, expert, i});
  }
  return rows;
}

// What arrives at a rank when all send as planned, parts in the order of sources.
std::vector<Row> arrived(const std::vector<int32_t>& counts, const std::vector<ExchangePlan>& plans, int rank,
                         int64_t experts) {
  std::vector<Row> rows;
  for (size_t source = 0; source < plans.size(); ++source) {
    const std::vector<Row> own = rows_of(counts, static_cast<int>(source), experts);
    const auto& sent = plans[source].sent;
    const int64_t first = std::accumulate(sent.begin(), sent.begin() + rank, int64_t{0});
    rows.insert(rows.end(), own.begin() + first, own.begin() + first + sent[static_cast<size_t>(rank)]);
  }
  return rows;
}

void expect_whole(const std::vector<int32_t>& counts, int ranks) {
  const int64_t experts = static_cast<int64_t>(counts.size()) / ranks, each = experts / ranks;
  std::vector<ExchangePlan> plans;
  for (int rank = 0; rank < ranks; ++rank) plans.push_back(make_exchange_plan(counts, rank, ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    const ExchangePlan& plan = plans[static_cast<size_t>(rank)];
    EXPECT_EQ(plan.rows_sent(), static_cast<int64_t>(rows_of(counts, rank, experts).size()));
    for (int peer = 0; peer < ranks; ++peer) {
      EXPECT_EQ(plan.received[static_cast<size_t>(peer)],
                plans[static_cast<size_t>(peer)].sent[static_cast<size_t>(rank)]);
    }
    const std::vector<Row> rows = arrived(counts, plans, rank, experts);
    ASSERT_EQ(plan.rows_received(), static_cast<int64_t>(rows.size()));
    std::vector<Row> grouped;
    for (size_t i = 0; i < rows.size(); ++i) {
      grouped.push_back(rows[static_cast<size_t>(plan.by_expert[i])]);
      EXPECT_EQ(plan.by_expert[static_cast<size_t>(plan.by_arrival[i])], static_cast<int32_t>(i));
    }
    std::vector<Row> expected;
    for (int64_t expert = rank * each; expert < (rank + 1) * each; ++expert) {
      const size_t before = expected.size();
      for (int source = 0; source < ranks; ++source) {
        for (const Row& row : rows_of(counts, source, experts)) {
          if (row.expert == expert) expected.push_back(row);
        }
      }
      EXPECT_EQ(plan.counts[static_cast<size_t>(expert - rank * each)], static_cast<int64_t>(expected.size() - before));
    }
    EXPECT_EQ(grouped, expected);
  }
}

TEST(ExchangePlan, TheExampleOfTheHeader) {
  const std::vector<int32_t> counts = {2, 1, 1, 0, 1, 2, 0, 2};
  const ExchangePlan plan = make_exchange_plan(counts, 0, 2);
  EXPECT_EQ(plan.sent, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(plan.received, (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(plan.counts, (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(plan.by_expert, (std::vector<int32_t>{0, 1, 3, 2, 4, 5}));
  EXPECT_EQ(plan.by_arrival, (std::vector<int32_t>{0, 1, 3, 2, 4, 5}));
  expect_whole(counts, 2);
}

TEST(ExchangePlan, EveryRowArrivesOnce) {
  std::mt19937 random(1);
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int each : {1, 2, 4}) {
      std::vector<int32_t> counts(static_cast<size_t>(ranks * ranks * each));
      for (int32_t& count : counts) count = static_cast<int32_t>(random() % 4);
      expect_whole(counts, ranks);
    }
  }
}

TEST(ExchangePlan, NoRowsAndAllToOne) {
  expect_whole({0, 0, 0, 0, 0, 0, 0, 0}, 2);
  expect_whole({5, 0, 0, 0, 7, 0, 0, 0}, 2);
  expect_whole({0, 0, 0, 3, 0, 0, 0, 0}, 2);
  EXPECT_THROW((void)make_exchange_plan({1, 2, 3}, 0, 2), Error);
}

}  // namespace
}  // namespace ninefold
