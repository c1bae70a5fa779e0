// Every technique trained on tensors that the host does not reach, as on GPUs: the kernels of GPUs run on fibres, what
// is sent goes by way of the host or on NCCL (tests/support/fake_nccl), and the check and the books are as always.
#include "03_zero_fsdp/divide.h"
#include "08_expert_parallel/expert_parallel.h"
#include "08_expert_parallel/predict.h"
#include "tests/09_combined_3d/combined.h"

namespace ninefold {
namespace {

const std::string tiny =
    "--device cuda --dim 32 --layers 2 --heads 4 --kv-heads 2 --ffn 48 --length 16 --batch 4 --steps 2 ";

class Combined : public testing::TestWithParam<std::string> {};

TEST_P(Combined, IsTheSerialModel) {
  for (const std::string carrier : {"ours", "nccl"}) {
    expect_equal_to_serial(tiny + "--collectives " + carrier + " " + GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(Techniques, Combined,
                         testing::Values("--dp-replicate 2", "--dp-shard 2 --stage 1 --micro-batch 1",
                                         "--dp-shard 2 --stage 3", "--dp-shard 2 --stage 3 --offload pinned",
                                         "--dp-shard 2 --stage 3 --dtype bf16", "--tp 2", "--tp 2 --async-tp",
                                         "--pp 2 --micro-batches 4 --schedule 1f1b",
                                         "--pp 2 --micro-batches 2 --schedule zb-v --layers 4", "--cp 2",
                                         "--cp 2 --layout ulysses"));

// Noted in the first two steps, repeated in the others: gradients, updates and books are as always.
TEST(OnADevice, RepeatedTrainingIsTheSerialModel) {
  const std::string repeated = tiny + "--dp-replicate 2 --steps 4 --cuda-graph ";
  expect_equal_to_serial(repeated + "--collectives ours --micro-batches 2");
  expect_equal_to_serial(repeated + "--collectives nccl --dtype bf16 --recompute selective");
}

TEST(OnADevice, ExpertParallelIsTheSerialModel) {
  for (const std::string carrier : {"ours", "nccl"}) {
    SCOPED_TRACE(carrier);
    Job job = small_llama(carrier);
    job.options.device = DeviceType::cuda;
    job.options.batch = 4;
    job.options.steps = 2;
    job.options.llama.ffn = 24;
    job.options.llama.moe = {.experts = 4, .top_k = 2};
    job.mesh = {{"dp_replicate", 1}, {"dp_shard", 1}, {"ep", 0}};
    const Outcome outcome = train(job, [](Model& model, const Mesh& mesh, const TrainOptions& options) {
      const std::shared_ptr<ExpertParallel> experts = expert_parallel(model, mesh["ep"]);
      return beside(divide(model, mesh, {.stage = 0}, options), experts, options);
    });
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_TRUE(outcome.record.check.passed);
    expect_balanced_books(outcome.record);
  }
}

}  // namespace
}  // namespace ninefold
