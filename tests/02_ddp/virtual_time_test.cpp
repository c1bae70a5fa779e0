// Data parallelism on machines that are described: virtual time repeats itself, and the communication that each variant
// leaves exposed is what the formula says.
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "02_ddp/replicate.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

constexpr double alpha = 20e-6, beta = 1e9;  // of dp_replicate=1GB/s,20us
constexpr double bucket_mb = 0.02;

// What one all_reduce of so many bytes takes on n ranks by the algorithm that the selector picks.
double all_reduce_ms(int64_t bytes, int n) {
  const double size = static_cast<double>(bytes);
  const std::string_view algorithm = collectives::fastest(Operation::all_reduce, bytes, n).algorithm->name;
  EXPECT_TRUE(algorithm == "ring" || algorithm == "recursive_doubling") << "a formula for " << algorithm;
  return 1e3 * (algorithm == "ring" ? 2 * (n - 1) * (alpha + size / (n * beta)) : std::log2(n) * (alpha + size / beta));
}

// A Llama of 30 thousand parameters on `ranks` of these machines.
Job job_on(const std::string& compute) {
  Job job = small_llama();
  job.options.batch = 16;
  job.options.steps = 5;
  job.options.check = false;
  job.options.cluster = "dp_replicate=1GB/s,20us " + compute;
  return job;
}

Parallelize replicated_as(DdpVariant variant) {
  return [variant](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto replicated = std::make_shared<Replicated>(model, mesh["dp_replicate"], DdpOptions{variant, bucket_mb},
                                                         mesh.world().device(), options.grad_dtype);
    return Parallelism{.reduce_gradients = [replicated] { replicated->reduce_gradients(); },
                       .predict_traffic = [replicated](TrafficLedger& ledger,
                                                       int64_t steps) { replicated->predict_traffic(ledger, steps); },
                       .numerics = replicated->numerics()};
  };
}

RunRecord record_of(DdpVariant variant, const std::string& compute) {
  return train(job_on(compute), replicated_as(variant)).record;
}

// Bytes of the parameters, from the last to the first, each rounded up to 64 as in a buffer.
std::vector<int64_t> gradient_bytes() {
  const auto model = task_of(job_on("compute=1GF/s"))->make_model();
  std::vector<int64_t> bytes;
  for (const Parameter* parameter : parameters_of(*model)) {
    bytes.insert(bytes.begin(), rounded(parameter->size() * size_of(Dtype::f32)));
  }
  return bytes;
}

int64_t all_bytes() {
  const std::vector<int64_t> sizes = gradient_bytes();
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

// The buckets that they fill.
std::vector<int64_t> bucket_bytes() {
  std::vector<int64_t> buckets;
  for (const int64_t bytes : gradient_bytes()) {
    if (buckets.empty() || static_cast<double>(buckets.back()) >= bucket_mb * 1e6) buckets.push_back(0);
    buckets.back() += bytes;
  }
  return buckets;
}

double sum_of_all_reduces_ms(const std::vector<int64_t>& sizes) {
  double sum = 0;
  for (const int64_t bytes : sizes) sum += all_reduce_ms(bytes, job_size());
  return sum;
}

void expect_exposed(DdpVariant variant, double expected_ms) {
  // So slow that the backward of one layer takes longer than the all_reduce of a bucket.
  const RunRecord record = record_of(variant, "compute=0.1GF/s");
  EXPECT_NEAR(record.exposed.virtual_milliseconds, expected_ms, 0.1 * expected_ms);
  EXPECT_EQ(record.exposed.by_dimension.at("dp_replicate"), record.exposed.virtual_milliseconds);
}

TEST(Exposed, IsTheSumOverParametersForNaive) {
  expect_exposed(DdpVariant::naive, sum_of_all_reduces_ms(gradient_bytes()));
}

TEST(Exposed, IsOneAllReduceForFlat) { expect_exposed(DdpVariant::flat, all_reduce_ms(all_bytes(), job_size())); }

TEST(Exposed, IsTheSumOverBucketsForBucketed) {
  expect_exposed(DdpVariant::bucketed, sum_of_all_reduces_ms(bucket_bytes()));
}

// The last bucket is complete when the backward is; all others are hidden behind it.
TEST(Exposed, IsTheLastBucketForOverlapped) {
  ASSERT_GT(bucket_bytes().size(), 2u);
  expect_exposed(DdpVariant::overlapped, all_reduce_ms(bucket_bytes().back(), job_size()));
}

TEST(Exposed, FallsFromNaiveToFlatToOverlapped) {
  double before = std::numeric_limits<double>::infinity();
  for (const DdpVariant variant : {DdpVariant::naive, DdpVariant::flat, DdpVariant::overlapped}) {
    const RunRecord record = record_of(variant, "compute=0.1GF/s");
    EXPECT_LT(record.exposed.virtual_milliseconds, before);
    EXPECT_GT(record.virtual_milliseconds_per_step(), record.exposed.virtual_milliseconds);
    before = record.exposed.virtual_milliseconds;
  }
}

// What a report says of virtual time.
nlohmann::json virtual_values(const std::string& report) {
  const nlohmann::json json = nlohmann::json::parse(report);
  nlohmann::json values = {json["summary"]["virtual_ms_per_step"], json["exposed_communication"]["virtual_ms_per_step"],
                           json["exposed_communication"]["by_dimension"]};
  for (const nlohmann::json& step : json["steps"]) values.push_back(step["virtual_ms"]);
  return values;
}

TEST(VirtualTime, IsTheSameTenTimesWhateverTheRealTime) {
  const TemporaryFolder folder;
  std::minstd_rand random(std::random_device{}());
  Job job = job_on("compute=1GF/s,memory=1GB/s");
  job.options.check = true;
  job.options.report = folder.path("report.json");
  job.after_kernel = [&](const KernelCost&) {
    if (random() % 50 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
  };
  nlohmann::json first;
  for (int run = 0; run < 10; ++run) {
    train(job, replicated_as(DdpVariant::overlapped));
    if (job_rank() != 0) continue;  // the one that reports
    const nlohmann::json values = virtual_values(folder.read("report.json"));
    if (run == 0) first = values;
    EXPECT_EQ(values.size(), 3u + 5u);
    EXPECT_GT(values[0], 0);
    EXPECT_EQ(values, first) << "run " << run;
  }
}

// By the processor time here: at least the communication, and at most that and all that was computed on any rank.
TEST(VirtualTime, IsPlausibleByProcessorTime) {
  const Stopwatch processor(Clock::thread);
  const RunRecord record = record_of(DdpVariant::flat, "compute=cpu");
  const double own_ms = 1e3 * processor.seconds();
  const World world({.device = make_cpu_device()}, collectives::ours());
  const double computed_ms = control::sum(world.group(), own_ms);
  const double communication_ms = all_reduce_ms(all_bytes(), job_size());
  double virtual_ms = 0;
  for (const StepRecord& step : record.steps) {
    EXPECT_GT(step.virtual_milliseconds, communication_ms);
    virtual_ms += step.virtual_milliseconds;
  }
  EXPECT_GT(record.exposed.virtual_milliseconds, 0.999 * communication_ms) << "and waiting for slower ranks";
  EXPECT_LT(virtual_ms, computed_ms + communication_ms * static_cast<double>(record.steps.size()));
}

}  // namespace
}  // namespace ninefold
