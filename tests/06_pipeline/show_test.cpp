// What 06/show draws and reads: the grid, the picture, the file of times.
#include <gtest/gtest.h>

#include "06_pipeline/drawing/svg.h"
#include "06_pipeline/drawing/time_slots.h"
#include "06_pipeline/generators/generators.h"
#include "06_pipeline/generators/sharded.h"
#include "06_pipeline/schedule/csv.h"
#include "tests/support/temporary_folder.h"

namespace ninefold::pipeline {
namespace {

CheckedSchedule make(std::string_view name, const PipelineSize& size) {
  return CheckedSchedule(find_generator(name).make(size), name);
}

int count(std::string_view text, std::string_view part) {
  int found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Grid, IsAsDrawnInThePapers) {
  EXPECT_EQ(grid_of(in_time_slots(make("1f1b", {2, 3}))),
            "rank 0  0F0 0F1 .   .   0B0---- 0F2 0B1---- .   0B2----\n"
            "rank 1  .   1F0 1B0---- 1F1 1B1---- 1F2 1B2---- .   .\n");
  EXPECT_EQ(grid_of(in_time_slots(make("zb-h1", {2, 3}))),
            "rank 0  0F0 0F1 .   0I0 0W0 0F2 0I1 0W1 0I2 0W2\n"
            "rank 1  .   1F0 1I0 1F1 1I1 1W0 1F2 1I2 1W1 1W2\n");
}

TEST(Grid, IsCutWhereTheTerminalEnds) {
  EXPECT_EQ(grid_of(in_time_slots(make("1f1b", {2, 1})), 20),
            "rank 0  0F0 .   .\n"
            "rank 1  .   1F0 1B0-\n"
            "\n"
            "rank 0  .   0B0----\n"
            "rank 1  --- .   .\n");
}

TEST(TimeSlots, AreTheSameSchedule) {
  for (const Generator& generator : generators()) {
    const Schedule schedule = with_sharded_stages(generator.make({4, 8, 2}));
    const CheckedSchedule before(schedule);
    const CheckedSchedule after(parse_csv(csv_of(in_time_slots(before)), "t.csv"));
    for (int rank = 0; rank < before.ranks(); ++rank) {
      ASSERT_EQ(before.tasks(rank).size(), after.tasks(rank).size());
      for (size_t i = 0; i < before.tasks(rank).size(); ++i) {
        EXPECT_EQ(before.tasks(rank)[i].action, after.tasks(rank)[i].action);
        EXPECT_EQ(before.tasks(rank)[i].sends, after.tasks(rank)[i].sends);
      }
    }
  }
}

TEST(Svg, HasABoxForEveryAction) {
  for (const Generator& generator : generators()) {
    const CheckedSchedule schedule(with_sharded_stages(generator.make({4, 8, 2})));
    const Simulation simulation = simulate(schedule, {std::vector<StageTimes>(schedule.stages()), 0.5});
    const std::string svg = svg_of(schedule, simulation, "A & B < C");
    size_t actions = 0;
    for (int rank = 0; rank < schedule.ranks(); ++rank) actions += schedule.tasks(rank).size();
    EXPECT_EQ(count(svg, "<title>"), static_cast<int>(actions));
    for (const char* element : {"svg", "g", "text", "title", "pattern", "defs"}) {
      EXPECT_EQ(count(svg, fmt::format("<{}>", element)) + count(svg, fmt::format("<{} ", element)),
                count(svg, fmt::format("</{}>", element)))
          << element;
    }
    EXPECT_EQ(count(svg, "A &amp; B &lt; C"), 1);
    EXPECT_EQ(count(svg, "nan"), 0);
  }
}

TEST(Svg, IsTrueToTheTimes) {
  const CheckedSchedule schedule = make("1f1b", {2, 1});
  const std::string svg = svg_of(schedule, simulate(schedule, {{{1, 1, 1}, {2, 1, 2}}, 0.5}), "");
  for (const char* title : {"0F0 from 0 to 1", "1F0 from 1.5 to 3.5", "1B0 from 3.5 to 6.5", "0B0 from 7 to 9"}) {
    EXPECT_EQ(count(svg, title), 1) << title;
  }
}

TEST(TimesFile, IsALineAStage) {
  const auto stages = parse_times("# ms\n18.5 18.1 9.3\r\n\n  1e1\t2 0   # the head\n", "times.txt");
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_DOUBLE_EQ(stages[0].input_gradient, 18.1);
  EXPECT_DOUBLE_EQ(stages[1].forward, 10);
  EXPECT_DOUBLE_EQ(stages[1].backward(), 2);
  const auto again = parse_times(text_of(stages), "times.txt");
  EXPECT_EQ(again[0].weight_gradient, stages[0].weight_gradient);
  EXPECT_EQ(again[1].forward, stages[1].forward);
}

TEST(TimesFile, NamesTheLineThatIsWrong) {
  const auto refusal = [](std::string_view content) { return sentence_of([&] { parse_times(content, "times.txt"); }); };
  EXPECT_EQ(refusal("1 1 1\n1 1\n"),
            "times.txt, line 2 has 2 numbers; a stage has three: forward, input gradient, weight gradient");
  EXPECT_EQ(refusal("1 x 1"), "times.txt, line 1: 'x' is not a time; write a number from 0");
  EXPECT_EQ(refusal("1 -2 1"), "times.txt, line 1: '-2' is not a time; write a number from 0");
  EXPECT_EQ(refusal("1 inf 1"), "times.txt, line 1: 'inf' is not a time; write a number from 0");
  EXPECT_EQ(refusal("0 0 0"), "times.txt, line 1: a stage must take some time");
  EXPECT_EQ(refusal("# nothing\n"),
            "times.txt holds no times; write a line 'forward input_gradient weight_gradient' a stage");
}

}  // namespace
}  // namespace ninefold::pipeline
