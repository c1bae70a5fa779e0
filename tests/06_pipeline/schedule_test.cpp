// Every schedule for 2, 4 and 8 ranks and 1 to 3 times as many micro-batches: right, with the memory and the bubble
// that its file's head promises.
#include <gtest/gtest.h>

#include <algorithm>

#include "06_pipeline/generators/generators.h"
#include "06_pipeline/generators/sharded.h"
#include "06_pipeline/schedule/peak.h"
#include "06_pipeline/schedule/simulate.h"
#include "common/base/check.h"

namespace ninefold::pipeline {
namespace {

bool is_allowed(const Generator& generator, const PipelineSize& size) {
  if (generator.name == "interleaved") return size.micro_batches % size.ranks == 0;
  if (generator.name == "dualpipe") return size.micro_batches % 2 == 0 && size.ranks % 2 == 0;
  return true;
}

// Calls body(generator, size) for every size that the schedule's rule allows.
template <typename Body>
void for_each_case(Body&& body) {
  for (const Generator& generator : generators()) {
    for (const int ranks : {1, 2, 3, 4, 8}) {
      for (int micro_batches = 1; micro_batches <= 3 * ranks; ++micro_batches) {
        const PipelineSize size{ranks, micro_batches, 2};
        if (!is_allowed(generator, size)) continue;
        SCOPED_TRACE(fmt::format("{}, {} ranks, {} micro-batches", generator.name, ranks, micro_batches));
        body(generator, size);
      }
    }
  }
}

CheckedSchedule make(std::string_view name, const PipelineSize& size) {
  return CheckedSchedule(find_generator(name).make(size), name);
}

Times equal_times(const CheckedSchedule& schedule, StageTimes times, double communication = 0) {
  return {std::vector<StageTimes>(schedule.stages(), times), communication};
}

double bubble(std::string_view name, const PipelineSize& size, StageTimes times, double communication = 0) {
  const CheckedSchedule schedule = make(name, size);
  return simulate(schedule, equal_times(schedule, times, communication)).bubble();
}

TEST(Schedules, AreRight) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule schedule = make(generator.name, size);
    const int chunks = generator.chunks(size);
    EXPECT_EQ(schedule.ranks(), size.ranks);
    EXPECT_EQ(schedule.stages(), generator.placement == Placement::twins ? size.ranks : size.ranks * chunks);
    EXPECT_EQ(schedule.micro_batches(), size.micro_batches);
    for (int rank = 0; rank < size.ranks; ++rank) {
      std::vector<int> stages;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        stages.push_back(stage_at(generator.placement, rank, chunk, size.ranks));
      }
      std::sort(stages.begin(), stages.end());
      EXPECT_EQ(schedule.stages_of(rank), stages);
    }
  });
}

TEST(Schedules, AddWeightGradientsInTheOrderOfTheMicroBatches) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule schedule = make(generator.name, size);
    for (int rank = 0; rank < size.ranks; ++rank) {
      std::map<int, int> last;  // micro-batch, by stage
      for (const Task& task : schedule.tasks(rank)) {
        if (!task.action.gives_weight_gradient()) continue;
        const auto [previous, is_first] = last.try_emplace(task.action.stage, -1);
        EXPECT_LT(previous->second, task.action.micro_batch) << text_of(task.action);
        previous->second = task.action.micro_batch;
      }
    }
  });
}

TEST(Schedules, HaveTheirRules) {
  const auto refused = [](std::string_view name, int ranks, int micro_batches) {
    EXPECT_THROW(find_generator(name).make({ranks, micro_batches, 2}), UserError) << name << ranks << micro_batches;
  };
  refused("interleaved", 4, 6);
  refused("interleaved", 4, 3);
  refused("dualpipe", 4, 3);
  refused("dualpipe", 3, 4);
}

// A message is received where it is sent to, under the same tag, and each tag of a pair of ranks is used once.
TEST(Messages, MeetTheirReceivers) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule schedule = make(generator.name, size);
    std::map<std::tuple<int, int, int>, int> sent, received;
    size_t expected = 0;
    for (int rank = 0; rank < size.ranks; ++rank) {
      for (const Task& task : schedule.tasks(rank)) {
        if (const auto& message = task.sends) {
          EXPECT_EQ(message->from, rank);
          EXPECT_EQ(message->is_gradient, task.action.kind != Kind::forward);
          ++sent[{message->from, message->to, message->tag}];
        }
        if (const auto& message = task.receives) {
          EXPECT_EQ(message->to, rank);
          ++received[{message->from, message->to, message->tag}];
        }
      }
    }
    for (int stage = 0; stage + 1 < schedule.stages(); ++stage) {
      for (int i = 0; i < size.micro_batches; ++i) {
        expected += 2 * (schedule.rank_of(stage, i) != schedule.rank_of(stage + 1, i));
      }
    }
    EXPECT_EQ(sent, received);
    EXPECT_EQ(sent.size(), expected);
  });
}

TEST(Messages, ArriveBeforeTheirTaskInTheOrder) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule schedule = make(generator.name, size);
    std::vector<size_t> next(size.ranks, 0);
    std::map<Action, bool> is_over;
    for (const auto& [rank, index] : schedule.order()) {
      EXPECT_EQ(index, next[rank]++);
      const Action& action = schedule.tasks(rank)[index].action;
      for (const Action& need : schedule.needs(action)) EXPECT_TRUE(is_over[need]) << text_of(action);
      is_over[action] = true;
    }
  });
}

TEST(Placements, AreAsDrawn) {
  const auto stages = [](Placement placement) {
    std::vector<int> all;
    for (int rank = 0; rank < 4; ++rank) {
      for (int chunk = 0; chunk < 2; ++chunk) all.push_back(stage_at(placement, rank, chunk, 4));
    }
    return all;
  };
  EXPECT_EQ(stages(Placement::loop), (std::vector<int>{0, 4, 1, 5, 2, 6, 3, 7}));
  EXPECT_EQ(stages(Placement::v), (std::vector<int>{0, 7, 1, 6, 2, 5, 3, 4}));
  EXPECT_EQ(stages(Placement::twins), (std::vector<int>{0, 3, 1, 2, 2, 1, 3, 0}));
}

TEST(Placements, DualPipeHoldsTwoCopies) {
  const CheckedSchedule schedule = make("dualpipe", {4, 8});
  EXPECT_EQ(schedule.ranks_of(1), (std::vector<int>{1, 2}));
  EXPECT_EQ(schedule.rank_of(1, 3), 1);
  EXPECT_EQ(schedule.rank_of(1, 4), 2);
}

TEST(Bubble, OfGPipeAnd1F1BIsTheFormula) {
  for (const int p : {1, 2, 4, 8}) {
    for (int m = 1; m <= 3 * p; ++m) {
      const double expected = (p - 1.0) / (m + p - 1.0);
      for (const StageTimes& times : {StageTimes{1, 1, 1}, StageTimes{3, 4, 2}, StageTimes{5, 1, 0.5}}) {
        EXPECT_NEAR(bubble("gpipe", {p, m}, times), expected, 1e-12);
        EXPECT_NEAR(bubble("1f1b", {p, m}, times), expected, 1e-12);
      }
    }
  }
}

TEST(Bubble, OfInterleavedIsDividedByTheVirtualStages) {
  for (const int p : {1, 2, 4, 8}) {
    for (const int v : {1, 2, 3, 4}) {
      for (const int m : {p, 2 * p, 3 * p, 8 * p}) {
        for (const StageTimes& times : {StageTimes{1, 1, 1}, StageTimes{1, 1, 0}, StageTimes{3, 4, 2}}) {
          EXPECT_NEAR(bubble("interleaved", {p, m, v}, times), (p - 1.0) / (v * m + p - 1.0), 1e-12)
              << p << ' ' << m << ' ' << v;
        }
      }
    }
  }
}

// F = I = W and no communication, where ZB-H2 and ZB-V are what they are named after.
TEST(Bubble, OfSplitBackwardsForEqualTimes) {
  for (const int p : {1, 2, 4, 8}) {
    const int m = 3 * p;
    EXPECT_NEAR(bubble("zb-h1", {p, m}, {1, 1, 1}), (p - 1.0) / (3 * m + p - 1.0), 1e-12);
    EXPECT_NEAR(bubble("zb-h2", {p, m}, {1, 1, 1}), 0, 1e-12);
    EXPECT_NEAR(bubble("zb-v", {p, m}, {1, 1, 1}), 0, 1e-12);
    if (p == 1) continue;
    EXPECT_NEAR(bubble("dualpipe", {p, m}, {1, 1, 1}), (p / 2 - 1.0) / (3 * m + p / 2 - 1.0), 1e-12);
  }
}

struct PublishedRow {
  int stages, micro_batches;
  StageTimes times;  // ms
  double communication;
  double one_f_one_b, zero_bubble_h1, zero_bubble_h2;
};

// Qi et al. 2023, tables 5 and 9: measured times, and the bubble rates that they give.
constexpr PublishedRow published[] = {
    {8, 24, {18.522, 18.086, 9.337}, 0.601, 0.2431, 0.1585, 0.1083},
    {8, 64, {18.546, 18.097, 9.321}, 0.762, 0.1240, 0.0674, 0.0444},
    {8, 32, {29.802, 29.428, 19.530}, 0.577, 0.1898, 0.1045, 0.0559},
    {16, 48, {11.347, 11.248, 8.132}, 0.377, 0.2552, 0.1397, 0.0672},
    {16, 128, {11.325, 11.308, 8.109}, 0.378, 0.1251, 0.0576, 0.0266},
    {32, 128, {10.408, 10.204, 7.703}, 0.408, 0.2168, 0.1106, 0.0490},
};

TEST(Bubble, IsThePublishedOneToAllDigits) {
  for (const PublishedRow& row : published) {
    const PipelineSize size{row.stages, row.micro_batches};
    const auto text = [&](std::string_view name) {
      return fmt::format("{:.4f}", bubble(name, size, row.times, row.communication));
    };
    EXPECT_EQ(text("1f1b"), fmt::format("{:.4f}", row.one_f_one_b));
    EXPECT_EQ(text("zb-h1"), fmt::format("{:.4f}", row.zero_bubble_h1));
    EXPECT_EQ(text("zb-h2"), fmt::format("{:.4f}", row.zero_bubble_h2));
  }
}

TEST(Simulation, OfTwoStagesByHand) {
  const CheckedSchedule schedule = make("1f1b", {2, 2});
  const Simulation simulation = simulate(schedule, {{{1, 1, 1}, {2, 1, 2}}, 0.5});
  // rank 0: 0F0 0F1 0B0 0B1      rank 1: 1F0 1B0 1F1 1B1
  const std::vector<std::vector<std::pair<double, double>>> expected = {
      {{0, 1}, {1, 2}, {7, 9}, {12, 14}}, {{1.5, 3.5}, {3.5, 6.5}, {6.5, 8.5}, {8.5, 11.5}}};
  for (int rank = 0; rank < 2; ++rank) {
    for (int i = 0; i < 4; ++i) {
      EXPECT_DOUBLE_EQ(simulation.intervals[rank][i].start, expected[rank][i].first) << rank << i;
      EXPECT_DOUBLE_EQ(simulation.intervals[rank][i].end, expected[rank][i].second) << rank << i;
    }
  }
  EXPECT_DOUBLE_EQ(simulation.total, 14);
  EXPECT_DOUBLE_EQ(simulation.cost(), 14);
  EXPECT_DOUBLE_EQ(simulation.ranks[0].busy, 6);
  EXPECT_DOUBLE_EQ(simulation.ranks[1].busy, 10);
  EXPECT_DOUBLE_EQ(simulation.ranks[1].start, 1.5);
  EXPECT_DOUBLE_EQ(simulation.bubble(), 6 / 14.0);
}

// Gathering long before the first micro-batch comes is no part of the pipeline.
TEST(Simulation, OfShardedStagesTakesNoLonger) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule plain = make(generator.name, size);
    const CheckedSchedule sharded(with_sharded_stages(generator.make(size)), generator.name);
    const Times times = equal_times(plain, {1, 2, 0.5}, 0.25);
    EXPECT_DOUBLE_EQ(simulate(sharded, times).bubble(), simulate(plain, times).bubble());
    for (int rank = 0; rank < size.ranks; ++rank) {
      EXPECT_EQ(sharded.tasks(rank).size(), plain.tasks(rank).size() + 3 * plain.stages_of(rank).size());
      EXPECT_EQ(peak_of(sharded, rank).live, peak_of(plain, rank).live);
    }
  });
}

TEST(Simulation, OfARankWithBothStagesSendsNothing) {
  const Schedule schedule = {{Action{0, Kind::forward, 0}, Action{1, Kind::forward, 0}, Action{1, Kind::backward, 0},
                              Action{0, Kind::backward, 0}}};
  const CheckedSchedule checked(schedule);
  EXPECT_DOUBLE_EQ(simulate(checked, equal_times(checked, {1, 1, 1}, 100)).total, 6);
  EXPECT_THROW(simulate(checked, {{{1, 1, 1}}, 0}), UserError);
}

// For ZB-V and DualPipe the most there can be; it is reached from 2p micro-batches on.
int expected_live(std::string_view name, const PipelineSize& size, int rank) {
  const auto& [p, m, v] = size;
  if (name == "gpipe") return m;
  if (name == "1f1b") return std::min(p - rank, m);
  if (name == "interleaved") return std::min((v - 1) * p + 2 * (p - 1 - rank) + 1, v * m);
  if (name == "zb-h1") return std::min(p, m);
  if (name == "zb-h2") return std::min(2 * p - 1, m);
  return name == "zb-v" ? 2 * p : p + 1;
}

TEST(Peak, OfLiveMicroBatches) {
  for_each_case([](const Generator& generator, const PipelineSize& size) {
    const CheckedSchedule schedule = make(generator.name, size);
    const bool is_limit =
        (generator.name == "zb-v" || generator.name == "dualpipe") && size.micro_batches < 2 * size.ranks;
    for (int rank = 0; rank < size.ranks; ++rank) {
      const int live = peak_of(schedule, rank).live, expected = expected_live(generator.name, size, rank);
      EXPECT_TRUE(live == expected || (is_limit && live < expected)) << live << " live on rank " << rank;
    }
  });
}

// Qi et al. 2023, table 1, where a stage's activations are M_B until I and M_W from there to W.
TEST(Peak, OfActivationsIsThePublishedFormula) {
  for (const int p : {2, 4, 8}) {
    for (const double kept : {0.0, 0.25, 0.5, 1.0}) {
      const CheckedSchedule h1 = make("zb-h1", {p, 3 * p}), h2 = make("zb-h2", {p, 3 * p});
      for (int rank = 0; rank < p; ++rank) {
        EXPECT_DOUBLE_EQ(peak_of(h1, rank, kept).activations, p - rank + rank * kept);
        EXPECT_DOUBLE_EQ(peak_of(h2, rank, kept).activations, 2 * (p - rank) - 1 + 2 * rank * kept);
      }
    }
  }
}

}  // namespace
}  // namespace ninefold::pipeline
