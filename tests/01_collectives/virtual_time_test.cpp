// Every algorithm takes, in virtual time, exactly what the α–β formula of the textbook says.
#include <cmath>

#include "01_collectives/algorithms/hierarchical.h"
#include "tests/support/virtual_job.h"

namespace ninefold::collectives {
namespace {

constexpr double alpha = slow.latency, beta = slow.bandwidth;

class FormulaTest : public testing::Test {
 protected:
  // The time of the slowest rank for one call with this algorithm; the whole data are `bytes_`.
  double time(Operation operation, const std::string& algorithm, const Cluster& cluster = test_cluster()) const {
    VirtualJob job({{"outer", ranks_}, {"inner", 1}}, cluster,
                   chosen_by([&](Operation asked, int64_t bytes, int ranks) {
                     if (asked != operation) return fastest(asked, bytes, ranks);
                     return Choice{&find_algorithm(operation, algorithm), 4096};
                   }));
    run(job, operation);
    return job.latest();
  }

  void run(VirtualJob& job, Operation operation) const {
    const Group& group = job.mesh["outer"];
    const Tensor whole = job.tensor(bytes_), part = job.tensor(bytes_ / ranks_);
    job.dawdle();
    if (operation == Operation::all_reduce) group.all_reduce(whole);
    if (operation == Operation::all_gather) group.all_gather(whole, part);
    if (operation == Operation::reduce_scatter) group.reduce_scatter(part, whole);
    if (operation == Operation::broadcast) group.broadcast(whole, ranks_ - 1);
    if (operation == Operation::reduce) group.reduce(whole, ranks_ - 1);
    if (operation == Operation::all_to_all) group.all_to_all(job.tensor(bytes_), whole);
    if (operation == Operation::barrier) group.barrier();
  }

  bool is_power_of_two() const { return power_of_two_below(ranks_) == ranks_; }

  const int ranks_ = job_size();
  const double n_ = ranks_;
  const int64_t bytes_ = 16384 * ranks_;
  const double s_ = static_cast<double>(bytes_) / beta;  // the whole data's time on the wire
  const double log_ = std::ceil(std::log2(n_));
};

TEST_F(FormulaTest, AllReduce) {
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "ring"), 2 * (n_ - 1) * (alpha + s_ / n_));
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "ordered"), alpha + (n_ - 1) / n_ * s_ + (n_ - 1) * (alpha + s_ / n_));
  const double group = balanced_group(ranks_), groups = n_ / group;
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "hierarchical"),
                   group == 1 ? 2 * (n_ - 1) * (alpha + s_ / n_)
                              : 2 * (group - 1) * (alpha + s_ / group) + 2 * (groups - 1) * (alpha + s_ / n_));
  if (!is_power_of_two()) return;
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "recursive_doubling"), log_ * (alpha + s_));
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "halving_doubling"), 2 * log_ * alpha + 2 * (n_ - 1) / n_ * s_);
}

TEST_F(FormulaTest, AllGather) {
  EXPECT_DOUBLE_EQ(time(Operation::all_gather, "ring"), (n_ - 1) * (alpha + s_ / n_));
  EXPECT_DOUBLE_EQ(time(Operation::all_gather, "bruck"), log_ * alpha + (n_ - 1) / n_ * s_);
}

TEST_F(FormulaTest, ReduceScatter) {
  EXPECT_DOUBLE_EQ(time(Operation::reduce_scatter, "ring"), (n_ - 1) * (alpha + s_ / n_));
  EXPECT_DOUBLE_EQ(time(Operation::reduce_scatter, "ordered"), alpha + (n_ - 1) / n_ * s_);
}

TEST_F(FormulaTest, Trees) {
  // Of three ranks, the root sends to two, and nobody passes it on.
  const double hops = ranks_ == 3 ? 1 : log_;
  EXPECT_DOUBLE_EQ(time(Operation::broadcast, "binomial_tree"), hops * alpha + log_ * s_);
  EXPECT_DOUBLE_EQ(time(Operation::reduce, "binomial_tree"), hops * alpha + log_ * s_);
}

TEST_F(FormulaTest, ReceiverContention) {
  // Everybody sends the whole to one rank, whose port takes one message after the other.
  EXPECT_DOUBLE_EQ(time(Operation::reduce, "ordered"), alpha + (n_ - 1) * s_);
}

TEST_F(FormulaTest, AllToAll) {
  EXPECT_DOUBLE_EQ(time(Operation::all_to_all, "pairwise"), (n_ - 1) * (alpha + s_ / n_));
}

TEST_F(FormulaTest, Barrier) { EXPECT_DOUBLE_EQ(time(Operation::barrier, "dissemination"), log_ * alpha); }

TEST_F(FormulaTest, AdditionsCostNothingUnlessPriced) {
  Cluster cluster = test_cluster();
  cluster.reduce = beta / 2;  // each chunk takes twice its time on the wire to be added
  EXPECT_DOUBLE_EQ(time(Operation::all_reduce, "ring", cluster),
                   2 * (n_ - 1) * (alpha + s_ / n_) + (n_ - 1) * 2 * s_ / n_);
  EXPECT_DOUBLE_EQ(time(Operation::all_gather, "ring", cluster), (n_ - 1) * (alpha + s_ / n_));
}

}  // namespace
}  // namespace ninefold::collectives
