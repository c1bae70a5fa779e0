// The CSV form of schedules: there and back, and what the sentence says about every way in which a table can be wrong.
#include <gtest/gtest.h>

#include <fmt/ranges.h>

#include "06_pipeline/generators/generators.h"
#include "06_pipeline/schedule/checked.h"
#include "06_pipeline/schedule/csv.h"
#include "tests/support/temporary_folder.h"

namespace ninefold::pipeline {
namespace {

CheckedSchedule check(std::string_view csv) { return CheckedSchedule(parse_csv(csv, "t.csv"), "t.csv"); }

std::string refusal(std::string_view csv) {
  return sentence_of([&] { check(csv); });
}

TEST(Csv, ComesBackAsItWas) {
  for (const Generator& generator : generators()) {
    const Schedule schedule = generator.make({4, 8, 2});
    Schedule again = parse_csv(csv_of(schedule), "t.csv");
    EXPECT_EQ(csv_of(again), csv_of(schedule)) << generator.name;
    for (Row& row : again) {
      while (!row.back()) row.pop_back();  // the file's rows are of equal length
    }
    EXPECT_EQ(again, schedule) << generator.name;
  }
  EXPECT_EQ(csv_of(parse_csv("0F0,,0B0,,,", "t.csv")), "0F0,,0B0,,,\n");
}

TEST(Csv, IsReadAsPyTorchAndSpreadsheetsWriteIt) {
  const std::string_view text = "0UNSHARD,0F0,,,0B0,0REDUCE_GRAD,0RESHARD\r\n, 1F0 ,1I0,1W0,,,\r\n\r\n";
  const Schedule schedule = parse_csv(text, "t.csv");
  ASSERT_EQ(schedule.size(), 2u);
  EXPECT_EQ(schedule[0][1], (Action{0, Kind::forward, 0}));
  EXPECT_FALSE(schedule[0][2]);
  EXPECT_EQ(schedule[0][5], (Action{0, Kind::reduce_grad, 0}));
  EXPECT_EQ(schedule[1][3], (Action{1, Kind::weight_gradient, 0}));
  EXPECT_EQ(csv_of(schedule), "0UNSHARD,0F0,,,0B0,0REDUCE_GRAD,0RESHARD\n,1F0,1I0,1W0,,,\n");
  const CheckedSchedule checked = check(text);
  EXPECT_EQ(checked.tasks(1)[0].column, 1);
  EXPECT_EQ(checked.tasks(1)[0].receives, checked.tasks(0)[1].sends);
}

TEST(Csv, NamesTheCellThatIsNoAction) {
  EXPECT_EQ(refusal("0F0,0B0\n1F0,,1X0"),
            "t.csv, row 2 (rank 1), column 3: '1X0' has the unknown letter 'X'; there are F, I, W, B, UNSHARD, "
            "RESHARD, REDUCE_GRAD");
  EXPECT_EQ(refusal("0F0,F0"),
            "t.csv, row 1 (rank 0), column 2: 'F0' names no stage; an action is written like 2F5: stage, letter, "
            "micro-batch");
  EXPECT_EQ(refusal("0F"),
            "t.csv, row 1 (rank 0), column 1: '0F' names no micro-batch; an action is written like 2F5: stage, letter, "
            "micro-batch");
  EXPECT_EQ(refusal("0F0;0B0"), "t.csv, row 1 (rank 0), column 1: '0F0;0B0' goes on after the action 0F0");
  EXPECT_EQ(refusal("0RESHARD1"),
            "t.csv, row 1 (rank 0), column 1: '0RESHARD1' names a micro-batch, but RESHARD is of the whole stage");
  EXPECT_EQ(refusal("0F0,0SEND_F0"),
            "t.csv, row 1 (rank 0), column 2: '0SEND_F0' is not needed: sends and receives follow from the table");
  EXPECT_EQ(refusal("0F1234567"),
            "t.csv, row 1 (rank 0), column 1: the micro-batch of '0F1234567' has more than 6 digits");
  EXPECT_EQ(refusal("\n,,\n"), "t.csv holds no action; a row lists a rank's actions, like 0F0,0B0");
}

TEST(Table, LacksAnAction) {
  EXPECT_EQ(refusal("0F0,0F1,0B0,0B1\n1F0,1B0,1B1"),
            "t.csv, row 2 (rank 1), column 3: 1B1 cannot start: it needs 1F1, which is missing");
  EXPECT_EQ(refusal("0F0,0F1,0B0,0B1\n1F0,1B0,1F1"),
            "t.csv, row 2 (rank 1), column 3: 1F1 has no backward: 1B1, or 1I1 and 1W1, is missing");
  EXPECT_EQ(refusal("0F0,0B0\n1F0,1I0"), "t.csv, row 2 (rank 1), column 2: 1I0 has no second half: 1W0 is missing");
  EXPECT_EQ(refusal("0F0,0B0\n1F0,1W0"),
            "t.csv, row 2 (rank 1), column 2: 1W0 cannot start: it needs 1I0, which is missing");
  EXPECT_EQ(refusal("0B0\n1F0,1B0"),
            "t.csv, row 1 (rank 0), column 1: 0B0 cannot start: it needs 0F0, which is missing");
  EXPECT_EQ(refusal("0F0,0B0\n2F0,2B0"),
            "t.csv, row 2 (rank 1), column 1: 2F0 cannot start: it needs 1F0, which is missing");
  EXPECT_EQ(refusal("0F0,0F2,0B0,0B2"), "t.csv, row 1 (rank 0), column 5: 0F1 is missing");
  EXPECT_EQ(refusal("0F0,0B0\n,\n1F0,1B0"),
            "t.csv, row 2 (rank 1), column 1: the rank computes nothing; remove the row or give it a stage");
}

TEST(Table, HasAnActionTwice) {
  EXPECT_EQ(refusal("0F0,0B0\n1F0,,1F0,1B0"),
            "t.csv, row 2 (rank 1), column 3: 1F0 is there a second time; the first is in row 2 (rank 1), column 1");
  EXPECT_EQ(refusal("0F0,0B0,0W0"),
            "t.csv, row 1 (rank 0), column 3: 0W0 is a second backward, beside 0B0 in row 1 (rank 0), column 2");
}

TEST(Table, MovesAMicroBatchToAnotherRank) {
  EXPECT_EQ(refusal("0F0,1B0\n1F0,0B0"),
            "t.csv, row 2 (rank 1), column 2: 0B0 is on another rank than 0F0 in row 1 (rank 0), column 1, which keeps "
            "what it needs");
}

TEST(Table, WaitsInACycle) {
  EXPECT_EQ(refusal("0B0,0F0"),
            "t.csv, row 1 (rank 0), column 1: 0B0 cannot start: it needs 0F0 in row 1 (rank 0), column 2, which comes "
            "after 0B0 in row 1 (rank 0), column 1: a cycle, in which nothing can start");
  EXPECT_EQ(
      refusal("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1"),
      "t.csv, row 1 (rank 0), column 2: 0B0 cannot start: it needs 1B0 in row 2 (rank 1), column 3, which comes after "
      "1F1 in row 2 (rank 1), column 2, which needs 0F1 in row 1 (rank 0), column 3, which comes after 0B0 in row "
      "1 (rank 0), column 2: a cycle, in which nothing can start");
}

TEST(Table, ComputesOnAShardedStage) {
  EXPECT_EQ(refusal("0UNSHARD,0F0,0RESHARD,0B0"),
            "t.csv, row 1 (rank 0), column 4: 0B0 cannot start: stage 0 is sharded; put 0UNSHARD before it");
  EXPECT_EQ(refusal("0F0,0UNSHARD,0B0"),
            "t.csv, row 1 (rank 0), column 1: 0F0 cannot start: stage 0 is sharded; put 0UNSHARD before it");
  EXPECT_EQ(refusal("0UNSHARD,0UNSHARD,0F0,0B0"),
            "t.csv, row 1 (rank 0), column 2: 0UNSHARD cannot start: stage 0 is unsharded already");
  EXPECT_EQ(refusal("0F0,0RESHARD,0B0"),
            "t.csv, row 1 (rank 0), column 2: 0RESHARD cannot start: stage 0 is sharded already");
  EXPECT_EQ(refusal("0F0,0I0,0REDUCE_GRAD,0W0"),
            "t.csv, row 1 (rank 0), column 4: 0W0 comes too late: the gradients of stage 0 are reduced already; move "
            "0REDUCE_GRAD behind it");
  EXPECT_EQ(refusal("0F0,0B0,0REDUCE_GRAD,0REDUCE_GRAD"),
            "t.csv, row 1 (rank 0), column 4: 0REDUCE_GRAD is there a second time");
  EXPECT_EQ(refusal("0F0,0B0,1UNSHARD"),
            "t.csv, row 1 (rank 0), column 3: 1UNSHARD is of a stage on which this rank computes nothing");
  EXPECT_EQ(refusal("0UNSHARD"),
            "t.csv, row 1 (rank 0), column 1: the rank computes nothing; remove the row or give it a stage");
}

TEST(Table, IsOfAnotherSize) {
  const auto sized = [](std::string_view csv, int ranks, int micro_batches) {
    return sentence_of([&] { require_size(parse_csv(csv, "t.csv"), ranks, micro_batches, "t.csv"); });
  };
  const std::string_view two = "0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1";
  EXPECT_NO_THROW(require_size(parse_csv(two, "t.csv"), 2, 2, "t.csv"));
  EXPECT_EQ(sized(two, 1, 2), "t.csv, row 2 (rank 1), column 2: 1F0 is on a rank too many; the pipeline has 1");
  EXPECT_EQ(sized(two, 3, 2), "t.csv has 2 rows, but the pipeline has 3 ranks; give every rank a row");
  EXPECT_EQ(sized(two, 2, 1), "t.csv, row 1 (rank 0), column 2: 0F1 is of a micro-batch too many; there are 1");
  EXPECT_EQ(sized(two, 2, 3), "t.csv is for 2 micro-batches, but there are 3");
}

// Whatever one does to a right table with one action is found, unless it is still right.
class Mutations : public testing::TestWithParam<std::string> {
 protected:
  const Schedule schedule_ = find_generator(GetParam()).make({4, 8, 2});
};

TEST_P(Mutations, ALostActionIsFound) {
  for (size_t rank = 0; rank < schedule_.size(); ++rank) {
    for (size_t i = 0; i < schedule_[rank].size(); ++i) {
      Schedule mutant = schedule_;
      mutant[rank][i].reset();
      const std::string sentence = sentence_of([&] { CheckedSchedule checked(mutant); });
      EXPECT_NE(sentence.find(text_of(*schedule_[rank][i])), std::string::npos) << sentence;
    }
  }
}

TEST_P(Mutations, ADoubledActionIsFound) {
  for (size_t rank = 0; rank < schedule_.size(); ++rank) {
    for (size_t i = 0; i < schedule_[rank].size(); ++i) {
      for (size_t to = 0; to < schedule_.size(); ++to) {
        Schedule mutant = schedule_;
        mutant[to].push_back(schedule_[rank][i]);
        EXPECT_NE(sentence_of([&] { CheckedSchedule checked(mutant); }).find("a second time"), std::string::npos);
      }
    }
  }
}

// The needs of the actions, written once more, in the words of the rule: can the table be done to its end?
bool can_be_done(const Schedule& schedule, int stages) {
  std::vector<size_t> next(schedule.size(), 0);
  std::map<std::string, bool> done;
  const auto is_done = [&](int stage, std::string_view letters, int micro_batch) {
    return std::any_of(letters.begin(), letters.end(),
                       [&](char letter) { return done[fmt::format("{}{}{}", stage, letter, micro_batch)]; });
  };
  const auto can_start = [&](const Action& action) {
    const auto& [s, kind, i] = action;
    if (kind == Kind::forward) return s == 0 || is_done(s - 1, "F", i);
    if (kind == Kind::weight_gradient) return is_done(s, "I", i);
    return is_done(s, "F", i) && (s == stages - 1 || is_done(s + 1, "IB", i));
  };
  for (bool goes_on = true; goes_on;) {
    goes_on = false;
    for (size_t rank = 0; rank < schedule.size(); ++rank) {
      for (; next[rank] < schedule[rank].size() && can_start(*schedule[rank][next[rank]]); ++next[rank]) {
        done[text_of(*schedule[rank][next[rank]])] = goes_on = true;
      }
    }
  }
  for (size_t rank = 0; rank < schedule.size(); ++rank) {
    if (next[rank] < schedule[rank].size()) return false;
  }
  return true;
}

TEST_P(Mutations, AMovedActionIsFoundWhereItMatters) {
  const CheckedSchedule right(schedule_);
  int found = 0;
  for (size_t rank = 0; rank < schedule_.size(); ++rank) {
    const size_t size = schedule_[rank].size();
    for (size_t from = 0; from < size; ++from) {
      for (const size_t to : {size_t{0}, from / 2, (from + size) / 2, size - 1}) {
        Schedule mutant = schedule_;
        const auto action = mutant[rank][from];
        mutant[rank].erase(mutant[rank].begin() + static_cast<std::ptrdiff_t>(from));
        mutant[rank].insert(mutant[rank].begin() + static_cast<std::ptrdiff_t>(to), action);
        if (can_be_done(mutant, right.stages())) {
          EXPECT_NO_THROW(CheckedSchedule{mutant});
          continue;
        }
        ++found;
        const std::string sentence = sentence_of([&] { CheckedSchedule checked(mutant); });
        EXPECT_NE(sentence.find("cannot start: it needs"), std::string::npos) << sentence;
        EXPECT_NE(sentence.find("a cycle"), std::string::npos) << sentence;
      }
    }
  }
  EXPECT_GT(found, 50);
}

TEST_P(Mutations, AnActionOnAnotherRankIsFound) {
  for (size_t rank = 0; rank < schedule_.size(); ++rank) {
    for (size_t i = 0; i < schedule_[rank].size(); ++i) {
      Schedule mutant = schedule_;
      mutant[(rank + 1) % schedule_.size()].push_back(mutant[rank][i]);
      mutant[rank][i].reset();
      EXPECT_NE(sentence_of([&] { CheckedSchedule checked(mutant); }).find("is on another rank"), std::string::npos);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OfEvery, Mutations, testing::ValuesIn(generator_names()), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace ninefold::pipeline
