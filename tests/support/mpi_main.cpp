// The main of tests that run under mpirun: mpirun -n 4 group_test --ranks=4. Every rank runs every test; a failure on
// any rank is the job's. Rank 0 prints as usual, the others only their failures. --synchronous-sends says that the job
// was started with synchronous_sends.cpp.
#include <gtest/gtest.h>
#include <mpi.h>

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

// A tiny message, which MPI would buffer, tells whether sends are as they were asked for.
void require_sends(bool synchronous) {
  const char out = 0;
  char in = 0;
  int done = 0;
  MPI_Request request;
  MPI_Isend(&out, 1, MPI_CHAR, job_rank(), 0, MPI_COMM_WORLD, &request);
  MPI_Test(&request, &done, MPI_STATUS_IGNORE);
  MPI_Recv(&in, 1, MPI_CHAR, job_rank(), 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  require(synchronous != (done != 0), "sends are {}synchronous", synchronous ? "not " : "");
}

// Too few ranks would leave tests without anything to test.
void read_arguments(int argc, char** argv, int ranks) {
  constexpr std::string_view ranks_option = "--ranks=";
  bool synchronous = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    synchronous |= argument == "--synchronous-sends";
    if (!argument.starts_with(ranks_option)) continue;
    const int expected = std::stoi(std::string(argument.substr(ranks_option.size())));
    require(ranks == expected, "the test needs {} ranks, but the job has {}", expected, ranks);
  }
  require_sends(synchronous);
}

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  read_arguments(argc, argv, job_size());
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
