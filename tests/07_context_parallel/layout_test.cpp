// Layouts and plans as data: every position once, no pair of the mask lost, and who has how much of the work.
#include "07_context_parallel/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "common/base/check.h"

namespace ninefold {
namespace {

using Positions = std::vector<int32_t>;

std::vector<SequenceLayout> all_layouts(int ranks) {
  std::vector<SequenceLayout> all;
  for (const auto& [layout, name] : layouts) {
    if (layout != ContextLayout::hybrid) all.emplace_back(layout, ranks);
    for (int ulysses = 1; layout == ContextLayout::hybrid && ulysses <= ranks; ++ulysses) {
      if (ranks % ulysses == 0) all.emplace_back(layout, ranks, ulysses);
    }
  }
  return all;
}

TEST(SequenceLayout, PositionsOfSixteenTokens) {
  EXPECT_EQ(SequenceLayout(ContextLayout::contiguous, 4).positions(1, 16), (Positions{4, 5, 6, 7}));
  EXPECT_EQ(SequenceLayout(ContextLayout::striped, 4).positions(1, 16), (Positions{1, 5, 9, 13}));
  EXPECT_EQ(SequenceLayout(ContextLayout::zigzag, 4).positions(1, 16), (Positions{2, 3, 12, 13}));
  EXPECT_EQ(SequenceLayout(ContextLayout::gathered, 4).positions(1, 16), (Positions{2, 3, 12, 13}));
  EXPECT_EQ(SequenceLayout(ContextLayout::ulysses, 4).positions(1, 16), (Positions{4, 5, 6, 7}));
  EXPECT_EQ(SequenceLayout(ContextLayout::hybrid, 4, 2).positions(0, 16), (Positions{0, 1, 2, 3}));
  EXPECT_EQ(SequenceLayout(ContextLayout::hybrid, 4, 2).positions(1, 16), (Positions{12, 13, 14, 15}));
  EXPECT_EQ(SequenceLayout(ContextLayout::hybrid, 4, 2).positions(2, 16), (Positions{4, 5, 6, 7}));
}

TEST(SequenceLayout, EveryPositionIsOnOneRankAndComesBack) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const SequenceLayout& layout : all_layouts(ranks)) {
      SCOPED_TRACE(fmt::format("{} over {} by {}", name_of(layout.layout), ranks, layout.ulysses));
      const int64_t length = 3 * layout.divisor();
      Positions rows;
      for (int rank = 0; rank < ranks; ++rank) {
        const Positions own = layout.positions(rank, length);
        EXPECT_TRUE(std::is_sorted(own.begin(), own.end()));
        rows.insert(rows.end(), own.begin(), own.end());
      }
      const Positions undo = layout.undo(length);
      for (int32_t i = 0; i < length; ++i) EXPECT_EQ(rows.at(static_cast<size_t>(undo.at(static_cast<size_t>(i)))), i);
    }
  }
}

TEST(SequenceLayout, NoPairOfTheMaskIsLost) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const SequenceLayout& layout : all_layouts(ranks)) {
      const int64_t length = 2 * layout.divisor(), heads = 8 * 105, width = 4;
      int64_t sum = 0;
      for (int rank = 0; rank < ranks; ++rank) sum += layout.multiply_adds(rank, length, heads, width);
      EXPECT_EQ(sum, 6 * length * (length + 1) / 2 * heads * width) << name_of(layout.layout) << " " << ranks;
    }
  }
}

// Of all pairs, and within what one block of a rank's own has.
TEST(SequenceLayout, StripedAndZigzagShareTheWorkEvenly) {
  const int64_t length = 1024;
  const auto shares = [&](ContextLayout layout) {
    std::vector<double> found;
    for (int rank = 0; rank < 4; ++rank) {
      found.push_back(static_cast<double>(SequenceLayout(layout, 4).multiply_adds(rank, length, 4, 1)) /
                      (4 * 6.0 * length * (length + 1) / 2));
    }
    return found;
  };
  const std::vector<double> contiguous = shares(ContextLayout::contiguous);
  for (int rank = 0; rank < 4; ++rank) EXPECT_NEAR(contiguous[static_cast<size_t>(rank)], (2 * rank + 1) / 16.0, 1e-3);
  for (const ContextLayout layout :
       {ContextLayout::striped, ContextLayout::zigzag, ContextLayout::gathered, ContextLayout::ulysses}) {
    for (const double share : shares(layout)) EXPECT_NEAR(share, 0.25, 1e-3) << name_of(layout);
  }
}

TEST(RingPlan, SkipsWhatTheMaskEmpties) {
  const SequenceLayout contiguous(ContextLayout::contiguous, 4), zigzag(ContextLayout::zigzag, 4);
  for (int rank = 0; rank < 4; ++rank) {
    const std::vector<RingStep> plan = ring_plan(contiguous, rank, 64);
    for (int step = 0; step < 4; ++step) {
      EXPECT_EQ(plan[static_cast<size_t>(step)].block, (rank - step + 4) % 4);
      EXPECT_EQ(plan[static_cast<size_t>(step)].pairs, step == 0 ? 136 : step <= rank ? 256 : 0);
    }
    // Half of the queries see all keys, or all queries half of the keys.
    for (const RingStep& step : ring_plan(zigzag, rank, 64)) {
      EXPECT_EQ(step.pairs, step.block == rank ? 36 + 64 + 36 : 128);
    }
  }
}

TEST(SequenceLayout, SaysWhatDoesNotFit) {
  const auto sentence = [](const auto& wrong) -> std::string {
    try {
      wrong();
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing";
  };
  EXPECT_EQ(sentence([] { SequenceLayout(ContextLayout::zigzag, 4).validate(100, 4, 4); }),
            "length (100) must be divisible by 2 x cp = 8 for the layout zigzag over cp (4); try --length 104");
  EXPECT_EQ(sentence([] { SequenceLayout(ContextLayout::striped, 4).validate(102, 4, 4); }),
            "length (102) must be divisible by 4 for the layout striped over cp (4); try --length 104");
  EXPECT_EQ(sentence([] { SequenceLayout(ContextLayout::ulysses, 8).validate(64, 8, 2); }),
            "the layout ulysses gives each of 8 ranks its own kv-heads, but there are 2: at most 2 ranks can share "
            "them; for more use --layout hybrid --ulysses 2 --cp 8");
  EXPECT_EQ(sentence([] { SequenceLayout(ContextLayout::hybrid, 4, 3); }), "--ulysses (3) must divide --cp (4)");
  EXPECT_EQ(sentence([] { SequenceLayout(ContextLayout::zigzag, 4, 2); }),
            "--ulysses (2) is for --layout hybrid; with zigzag leave it out");
}

}  // namespace
}  // namespace ninefold
