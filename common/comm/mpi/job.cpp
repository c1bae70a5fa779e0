#include "common/comm/mpi/job.h"

#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "common/comm/mpi/check.h"
#include "common/comm/world.h"

namespace ninefold {
namespace {

void print_sentence(const char* sentence) {
  std::fflush(stdout);
  if (on_first_rank()) {
    fmt::print(stderr, "ninefold: {}\n", sentence);
  } else {
    // Rank 0 has usually met the same error, and its sentence ends the job before this one is printed; on a busy
    // machine that takes more than a second.
    std::this_thread::sleep_for(std::chrono::seconds(4));
    fmt::print(stderr, "ninefold: rank {}: {}\n", job_rank(), sentence);
  }
  std::fflush(stderr);
}

}  // namespace

int launch(int argc, char** argv, const std::function<int(int argc, char** argv)>& body) {
  int provided;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int exit_code = 1;
  try {
    exit_code = body(argc, argv);
  } catch (const std::exception& error) {
    print_sentence(error.what());
    if (job_size() > 1) mpi::end_job(1);
  }
  MPI_Finalize();
  return exit_code;
}

int job_rank() {
  int rank = 0;
  mpi::check(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  return rank;
}

int job_size() {
  int size = 1;
  mpi::check(MPI_Comm_size(MPI_COMM_WORLD, &size));
  return size;
}

bool on_first_rank() { return job_rank() == 0; }

int local_rank() {
  static const int known = [] {
    MPI_Comm machine;
    mpi::check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, job_rank(), MPI_INFO_NULL, &machine));
    int rank = 0;
    mpi::check(MPI_Comm_rank(machine, &rank));
    mpi::check(MPI_Comm_free(&machine));
    return rank;
  }();
  return known;
}

void mpi::end_job(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);  // MPI_Abort does not return, but is not declared so
}

}  // namespace ninefold
