// Two runs that never see each other, the parallel one and a serial one, keep the same losses.
#include "tests/09_combined_3d/combined.h"
#include "tests/support/serial_run.h"

namespace ninefold {
namespace {

TEST(FreeRun, KeepsTheLossesOfASerialRun) {
  Job job = small_llama();
  job.options.llama = {.dim = 32, .layers = 8, .heads = 8, .kv_heads = 2, .ffn = 48, .vocab = 256};
  job.options.batch = 16;
  job.options.steps = 8;
  const auto parallel = train_combined("--steps 8 --no-check").record.steps;
  const std::vector<double> serial = serial_run(job, /*data_ranks=*/1).losses;
  ASSERT_EQ(parallel.size(), serial.size());
  for (size_t step = 0; step < serial.size(); ++step) {
    EXPECT_NEAR(parallel[step].loss, serial[step], 1e-6 * serial[step]) << "step " << step;
  }
  EXPECT_LT(serial.back(), serial.front() - 0.1) << "the comparison says something only while the model learns";
}

}  // namespace
}  // namespace ninefold
