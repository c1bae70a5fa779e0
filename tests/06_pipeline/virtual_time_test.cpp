// The bubble that a run has in virtual time is the one that the simulator foresees from its stages' own times.
#include "tests/06_pipeline/pipelined.h"

namespace ninefold::pipeline {
namespace {

RunRecord record_of(const std::string& name, int micro_batches, int64_t layers, const std::string& link) {
  Job job = pipeline_llama(layers, micro_batches);
  job.options.check = false;
  job.options.steps = 4;
  job.options.cluster = link + " compute=0.1GF/s";
  return train(job, pipelined(job, generated(name))).record;
}

TEST(Bubble, IsTheSimulatedOne) {
  const int ranks = job_size();
  for (const std::string& name : generator_names()) {
    for (const char* link : {"pp=100GB/s,1us", "pp=1GB/s,50us"}) {
      SCOPED_TRACE(fmt::format("{}, {}", name, link));
      const RunRecord record = record_of(name, 2 * ranks, 2 * ranks + 1, link);
      ASSERT_TRUE(record.bubble);
      EXPECT_GT(record.bubble->predicted, 0);
      EXPECT_NEAR(record.bubble->measured, record.bubble->predicted, 0.03);
    }
  }
}

// With a small vocabulary the last stage has little more to do than the others.
TEST(Bubble, IsTheFormulaForEqualStages) {
  const double p = job_size(), m = 2 * p;
  const auto measured = [&](const std::string& name, double formula) {
    const int64_t layers = 2 * job_size();
    EXPECT_NEAR(record_of(name, 2 * job_size(), layers, "pp=100GB/s,1us").bubble->measured, formula, 0.5 * formula)
        << name;
  };
  measured("gpipe", (p - 1) / (m + p - 1));
  measured("1f1b", (p - 1) / (m + p - 1));
}

}  // namespace
}  // namespace ninefold::pipeline
