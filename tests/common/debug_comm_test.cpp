// --debug-comm, whoever carries the collectives: calls that do not match are an error that names both, on every rank,
// instead of a hang.
#include <gtest/gtest.h>

#include "01_collectives/collectives.h"
#include "common/comm/world.h"

namespace ninefold {
namespace {

// The parameter is what --collectives takes.
class DebugComm : public testing::TestWithParam<const char*> {
 protected:
  Tensor zeros(int64_t size, Dtype dtype = Dtype::f32) { return Tensor::zeros(device_, {size}, dtype); }

  // The sentence with which a call fails.
  template <typename Function>
  std::string sentence(Function call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_mismatch(const std::string& text, const std::string& of_rank_0, const std::string& of_last) {
    const std::string expected =
        fmt::format("world: rank 0 calls {} while rank {} calls {};", of_rank_0, last_, of_last);
    EXPECT_EQ(text.substr(0, expected.size()), expected);
  }

  DeviceHandle device_ = make_cpu_device();
  World world_{{.device = device_, .timeout = 20, .debug_comm = true}, collectives::named(GetParam())};
  Group group_ = world_.group();
  int last_ = group_.size() - 1;
  bool is_last_ = group_.rank() == last_;
};

TEST_P(DebugComm, Counts) {
  const std::string text = sentence([&] { group_.all_reduce(zeros(is_last_ ? 11 : 10)); });
  expect_mismatch(text, "all_reduce(sum) of 10 f32", "all_reduce(sum) of 11 f32");
}

TEST_P(DebugComm, Types) {
  const std::string text = sentence([&] { group_.all_reduce(zeros(10, is_last_ ? Dtype::bf16 : Dtype::f32)); });
  expect_mismatch(text, "all_reduce(sum) of 10 f32", "all_reduce(sum) of 10 bf16");
}

TEST_P(DebugComm, Operations) {
  const bool is_second = group_.rank() == 1;
  const std::string text = sentence([&] {
    if (is_second) {
      group_.all_gather(zeros(10 * group_.size()), zeros(10));
    } else {
      group_.all_reduce(zeros(10));
    }
  });
  const std::string expected = "world: rank 0 calls all_reduce(sum) of 10 f32 while rank 1 calls all_gather of 10 f32;";
  EXPECT_EQ(text.substr(0, expected.size()), expected);
}

TEST_P(DebugComm, AnOperationAgainstABarrier) {
  const std::string text = sentence([&] {
    if (is_last_) {
      group_.all_gather(zeros(10 * group_.size()), zeros(10));
    } else {
      group_.barrier();
    }
  });
  expect_mismatch(text, "barrier", "all_gather of 10 f32");
}

TEST_P(DebugComm, RootsAndReductions) {
  expect_mismatch(sentence([&] { group_.broadcast(zeros(1), is_last_ ? 1 : 0); }),
                  "broadcast of 1 f32 from rank 0 of the group", "broadcast of 1 f32 from rank 1 of the group");
  expect_mismatch(sentence([&] { group_.all_reduce(zeros(1), is_last_ ? ReduceOp::max : ReduceOp::sum); }),
                  "all_reduce(sum) of 1 f32", "all_reduce(max) of 1 f32");
}

// The last rank sends 2 rows to rank 0, which expects 1.
TEST_P(DebugComm, UnevenParts) {
  const int ranks = group_.size();
  std::vector<int64_t> in_rows(ranks, 1), out_rows(ranks, 1);
  if (is_last_) in_rows[0] = 2;
  const std::string text =
      sentence([&] { group_.all_to_all(zeros(ranks), zeros(is_last_ ? ranks + 1 : ranks), out_rows, in_rows); });
  const std::string expected =
      fmt::format("world: in all_to_all rank {} sends 2 elements to rank 0, which expects 1", last_);
  EXPECT_EQ(text.substr(0, expected.size()), expected);
}

TEST_P(DebugComm, MatchingCallsPass) {
  const Tensor x = Tensor::from(device_, {1}, std::vector<float>{1});
  group_.all_reduce(x);
  EXPECT_EQ(x.to_vector<float>()[0], static_cast<float>(group_.size()));
}

INSTANTIATE_TEST_SUITE_P(Collectives, DebugComm, testing::Values("ours", "ordered", "mpi"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ninefold
