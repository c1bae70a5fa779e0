// Every algorithm as a plan: right for any number of ranks and any root, without deadlock under synchronous sends, in
// as many steps and with as many messages and bytes as the head of its file says.
#include <gtest/gtest.h>

#include "01_collectives/algorithms/algorithms.h"
#include "01_collectives/algorithms/hierarchical.h"
#include "01_collectives/algorithms/ring.h"
#include "01_collectives/executor/plan_work.h"
#include "01_collectives/plan/drawing.h"

namespace ninefold::collectives {
namespace {

constexpr int most_ranks = 8;
constexpr int64_t whole = 840;  // elements: divides by every number of ranks

std::vector<Plan> plans_of(const Algorithm& algorithm, int ranks, int root) {
  std::vector<Plan> plans;
  for (int rank = 0; rank < ranks; ++rank) plans.push_back(algorithm.plan(rank, ranks, root));
  return plans;
}

bool is_message(const Algorithm& algorithm) {
  return algorithm.operation == Operation::send || algorithm.operation == Operation::recv;
}

// Calls body(algorithm, ranks, root) for everything there is.
template <typename Body>
void for_each_case(Body&& body) {
  for (const Algorithm& algorithm : algorithms()) {
    if (is_message(algorithm)) continue;
    for (int ranks = 1; ranks <= most_ranks; ++ranks) {
      for (int root = 0; root < ranks; ++root) {
        SCOPED_TRACE(
            fmt::format("{} {} of {} ranks, root {}", name_of(algorithm.operation), algorithm.name, ranks, root));
        body(algorithm, ranks, root);
      }
    }
  }
}

int log2_up(int value) {
  int log = 0;
  while ((1 << log) < value) ++log;
  return log;
}

int expected_steps(const Algorithm& algorithm, int n) {
  const int power = power_of_two_below(n), around = power == n ? 0 : 2;
  const std::string name(algorithm.name);
  if (name == "ring") return (algorithm.operation == Operation::all_reduce ? 2 : 1) * (n - 1);
  if (name == "recursive_doubling") return log2_up(power) + around;
  if (name == "halving_doubling") return 2 * log2_up(power) + around;
  if (name == "hierarchical") return 2 * (balanced_group(n) - 1) + 2 * (n / balanced_group(n) - 1);
  if (name == "ordered") return algorithm.operation == Operation::all_reduce ? n : 1;
  if (name == "pairwise") return n - 1;
  return log2_up(n);  // trees, Bruck, dissemination
}

// Of n ranks that know nothing, how many get the data from the one that is `from_root` ranks after the root.
int children(int from_root, int n) {
  int count = 0;
  for (int distance = 1; distance < n; distance *= 2) count += from_root < distance && from_root + distance < n;
  return count;
}

int64_t expected_elements(const Algorithm& algorithm, int rank, int n, int root) {
  const int power = power_of_two_below(n), too_many = n - power;
  const bool is_left = rank < 2 * too_many && rank % 2 == 0, is_right = rank < 2 * too_many && rank % 2 == 1;
  const std::string name(algorithm.name);
  if (algorithm.operation == Operation::barrier) return 0;
  if (algorithm.operation == Operation::broadcast) return children(wrapped(rank - root, n), n) * whole;
  if (algorithm.operation == Operation::reduce) return rank == root ? 0 : whole;
  if (name == "recursive_doubling") return is_left ? whole : (log2_up(power) + is_right) * whole;
  if (name == "halving_doubling") return is_left ? whole : 2 * (power - 1) * whole / power + is_right * whole;
  return (algorithm.operation == Operation::all_reduce ? 2 : 1) * (n - 1) * whole / n;
}

// Where chunks are not cut.
int64_t expected_messages(const Algorithm& algorithm, int rank, int n, int root) {
  const int power = power_of_two_below(n), too_many = n - power;
  const bool is_left = rank < 2 * too_many && rank % 2 == 0, is_right = rank < 2 * too_many && rank % 2 == 1;
  const std::string name(algorithm.name);
  if (algorithm.operation == Operation::broadcast) return children(wrapped(rank - root, n), n);
  if (algorithm.operation == Operation::reduce) return rank == root ? 0 : 1;
  if (name == "recursive_doubling") return is_left ? 1 : log2_up(power) + is_right;
  if (name == "halving_doubling") return is_left ? 1 : 2 * log2_up(power) + is_right;
  if (name == "ordered") return (algorithm.operation == Operation::all_reduce ? 2 : 1) * (n - 1);
  return expected_steps(algorithm, n);  // one in each
}

Call call_of(const Algorithm& algorithm, int ranks) {
  static const DeviceHandle meta = make_meta_device();
  const auto tensor = [](int64_t elements) { return Tensor::empty(meta, {elements}, Dtype::f32); };
  const Operation operation = algorithm.operation;
  if (operation == Operation::barrier) return {.operation = operation};
  return {.operation = operation,
          .in = tensor(operation == Operation::all_gather ? whole / ranks : whole),
          .out = tensor(operation == Operation::reduce_scatter ? whole / ranks : whole)};
}

TEST(Plans, AreRightAndDoNotDeadlock) {
  for_each_case([](const Algorithm& algorithm, int ranks, int root) {
    EXPECT_NO_THROW(simulate(algorithm.operation, plans_of(algorithm, ranks, root), root));
  });
}

TEST(Plans, TakeTheStepsThatTheirFormulaSays) {
  for_each_case([](const Algorithm& algorithm, int ranks, int root) {
    for (const Plan& plan : plans_of(algorithm, ranks, root)) {
      EXPECT_EQ(static_cast<int>(plan.steps.size()), expected_steps(algorithm, ranks));
    }
  });
}

TEST(Plans, SendTheBytesThatTheirFormulaSays) {
  for_each_case([](const Algorithm& algorithm, int ranks, int root) {
    for (int rank = 0; rank < ranks; ++rank) {
      const PlacedPlan plan =
          placed(algorithm.plan(rank, ranks, root), {algorithm.operation, rank, ranks, root, false});
      const Volume volume = volume_of(call_of(algorithm, ranks), plan, rank, ranks, largest_message);
      EXPECT_EQ(volume.bytes, 4 * expected_elements(algorithm, rank, ranks, root)) << "rank " << rank;
    }
  });
}

TEST(Plans, SendTheMessagesThatTheirFormulaSays) {
  constexpr int64_t segment = 16;  // elements
  for_each_case([](const Algorithm& algorithm, int ranks, int root) {
    for (int rank = 0; rank < ranks; ++rank) {
      const PlacedPlan plan =
          placed(algorithm.plan(rank, ranks, root), {algorithm.operation, rank, ranks, root, false});
      const int64_t messages = expected_messages(algorithm, rank, ranks, root);
      EXPECT_EQ(volume_of(call_of(algorithm, ranks), plan, rank, ranks, largest_message).messages, messages);
      if (algorithm.joins_chunks || algorithm.operation == Operation::barrier) continue;
      const bool is_whole = algorithm.name == "recursive_doubling" || algorithm.operation == Operation::broadcast ||
                            algorithm.operation == Operation::reduce;
      const int64_t segments = (whole / (is_whole ? 1 : ranks) + segment - 1) / segment;
      EXPECT_EQ(volume_of(call_of(algorithm, ranks), plan, rank, ranks, 4 * segment).messages, segments * messages);
    }
  });
}

// The sums of `ordered` are in rank order on every rank; a ring's are not.
TEST(Plans, OrderedAddsInRankOrder) {
  for (const Algorithm& algorithm : algorithms()) {
    if (algorithm.name != "ordered") continue;
    const Simulation simulation = simulate(algorithm.operation, plans_of(algorithm, 5, 3), 3);
    for (const auto& versions : simulation.held.back()) {
      for (const Version& version : versions) {
        if (version.size() == 5) {
          EXPECT_EQ(version, (Version{0, 1, 2, 3, 4}));
        }
      }
    }
  }
  const Algorithm& ring = find_algorithm(Operation::reduce_scatter, "ring");
  EXPECT_NE(simulate(ring.operation, plans_of(ring, 5, 0), 0).held.back()[1][1], (Version{0, 1, 2, 3, 4}));
}

TEST(Plans, OfTheHierarchySendLittleBetweenGroups) {
  for (const int group : {1, 2, 3, 4, 6, 12}) {
    std::vector<Plan> plans;
    for (int rank = 0; rank < 12; ++rank) plans.push_back(hierarchical_all_reduce(rank, 12, group));
    const Simulation simulation = simulate(Operation::all_reduce, plans, 0);
    if (group == 1 || group == 12) continue;
    int crossing = 0;  // chunks
    for (const auto& step : simulation.messages) {
      for (const Message& message : step) {
        if (message.from / group != message.to / group) crossing += message.chunks.count;
      }
    }
    // 2 (m-1)/m S/g for each of the 12 ranks, S being 12 chunks
    const int groups = 12 / group;
    EXPECT_EQ(crossing, 12 * 2 * (groups - 1) * 12 / groups / group);
  }
}

TEST(Plans, ScratchMemoryIsUsedAgain) {
  const Algorithm& ring = find_algorithm(Operation::reduce_scatter, "ring");
  EXPECT_EQ(placed(ring.plan(0, 2, 0), {ring.operation, 0, 2, 0, false}).slots, 0);
  EXPECT_EQ(placed(ring.plan(3, 8, 0), {ring.operation, 3, 8, 0, false}).slots, 2);
  const Algorithm& ordered = find_algorithm(Operation::reduce_scatter, "ordered");
  EXPECT_EQ(placed(ordered.plan(3, 8, 0), {ordered.operation, 3, 8, 0, false}).slots, 7);
}

class WrongPlans : public testing::Test {
 protected:
  void expect_error(Operation operation, const std::string& part) {
    try {
      simulate(operation, plans_, 0);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  std::vector<Plan> plans_ = plans_of(find_algorithm(Operation::all_reduce, "ring"), 4, 0);
};

TEST_F(WrongPlans, AMissingReceiveIsADeadlock) {
  plans_[2].steps[1].erase(plans_[2].steps[1].begin());
  expect_error(Operation::all_reduce, "deadlock: in step 2 rank 1 sends chunk 3 (1 in all) to rank 2");
}

TEST_F(WrongPlans, AMissingSendIsADeadlock) {
  plans_[2].steps[1].pop_back();
  expect_error(Operation::all_reduce, "deadlock: in step 2 rank 3 receives chunk 0 (1 in all) from rank 2");
}

TEST_F(WrongPlans, AContributionAddedTwiceIsFound) {
  for (Plan& plan : plans_) plan.steps.insert(plan.steps.begin(), plan.steps[0]);
  expect_error(Operation::all_reduce, "a second time");
}

TEST_F(WrongPlans, AMissingStepIsFound) {
  for (Plan& plan : plans_) plan.steps.pop_back();
  expect_error(Operation::all_reduce, "rank 0 ends with chunk 1 from ranks 0, 2, 3 where 0, 1, 2, 3 are expected");
}

TEST_F(WrongPlans, ASentChunkIsNotReplaced) {
  plans_ = {Plan{.chunks = 1, .steps = {{receive({0}, 1), send({0}, 1)}}},
            Plan{.chunks = 1, .steps = {{receive({0}, 0), send({0}, 0)}}}};
  expect_error(Operation::all_reduce, "in step 1 rank 0 sends chunk 0 while it is replaced");
}

TEST_F(WrongPlans, CompletionIsMarkedWhereItHappens) {
  plans_[0].steps[2][0].completes = false;
  expect_error(Operation::all_reduce, "rank 0's chunk 0 has 4 of 4 contributions, but is marked as incomplete");
}

TEST(Algorithms, AnUnknownNameListsTheKnownOnes) {
  try {
    find_algorithm(Operation::all_reduce, "rings");
    ADD_FAILURE() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "all_reduce has no algorithm 'rings': there are ring, recursive_doubling, halving_doubling, "
                 "hierarchical, ordered");
  }
}

int count(std::string_view text, std::string_view what) {
  int found = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + what.size())) ++found;
  return found;
}

// 4 ranks: 6 steps of 4 messages, each changing a cell of the 4 x 4. Filled are 16 strips at the beginning, one more
// for each contribution that a cell gains, and all 64 when everybody has everything.
TEST(Drawing, RingAllReduce) {
  const Algorithm& ring = find_algorithm(Operation::all_reduce, "ring");
  const std::string svg = drawing(ring.operation, simulate(ring.operation, plans_of(ring, 4, 0), 0));
  EXPECT_EQ(count(svg, "marker-end"), 6 * 4);
  EXPECT_EQ(count(svg, "stroke-width=\"2.5\""), 6 * 4);
  EXPECT_EQ(count(svg, "<rect") - 1 - 7 * 16, 16 + 20 + 28 + 40 + 52 + 60 + 64);
  EXPECT_EQ(count(svg, ">c3</text>"), 6);
  EXPECT_EQ(count(svg, "nan"), 0);
}

// Tensors of parts: a column for each sender, no names of chunks.
TEST(Drawing, AllToAll) {
  const Algorithm& pairwise = find_algorithm(Operation::all_to_all, "pairwise");
  const std::string svg = drawing(pairwise.operation, simulate(pairwise.operation, plans_of(pairwise, 3, 0), 0));
  EXPECT_EQ(count(svg, "marker-end"), 2 * 3);
  EXPECT_EQ(count(svg, "<rect") - 1 - 3 * 9, 3 + 6 + 9);
  EXPECT_EQ(count(svg, ">c"), 0);
}

}  // namespace
}  // namespace ninefold::collectives
