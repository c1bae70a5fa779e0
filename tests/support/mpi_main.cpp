// The main of tests that run under mpirun: mpirun -n 4 group_test --ranks=4. Every rank runs every test; a failure on
// any rank is the job's. Rank 0 prints as usual, the others only their failures.
#include <gtest/gtest.h>

#include <string>

#include "common/comm/world.h"

namespace ninefold {
namespace {

// Prints the failures of one rank.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    fmt::print(stderr, "rank {}: {}:{}: {}\n", rank_, result.file_name() ? result.file_name() : "unknown file",
               result.line_number(), result.message());
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    if (test.result()->Failed()) {
      fmt::print(stderr, "rank {}: {}.{} failed\n", rank_, test.test_suite_name(), test.name());
    }
  }

 private:
  int rank_;
};

// Too few ranks would leave tests without anything to test.
void require_ranks(int argc, char** argv, int ranks) {
  constexpr std::string_view option = "--ranks=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (!argument.starts_with(option)) continue;
    const int expected = std::stoi(std::string(argument.substr(option.size())));
    require(ranks == expected, "the test needs {} ranks, but the job has {}", expected, ranks);
  }
}

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  require_ranks(argc, argv, job_size());
  if (!on_first_rank()) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter(job_rank()));  // owned by GoogleTest
  }
  return RUN_ALL_TESTS();
}

}  // namespace
}  // namespace ninefold

int main(int argc, char** argv) { return ninefold::launch(argc, argv, ninefold::run_tests); }
