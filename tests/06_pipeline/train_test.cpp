// Every schedule end to end: to the bit the serial model, because all add the gradients of weights in the order of the
// micro-batches; books to the byte.
#include "06_pipeline/schedule/csv.h"
#include "tests/06_pipeline/pipelined.h"

namespace ninefold::pipeline {
namespace {

// On 8 ranks only the schedules with the most of them in practice.
std::vector<std::string> schedules() {
  return job_size() == 8 ? std::vector<std::string>{"1f1b", "interleaved"} : generator_names();
}

// One layer more than the stages: they cannot be equal.
int64_t uneven(const std::string& name, int ranks) {
  const Generator& generator = find_generator(name);
  return (generator.placement == Placement::twins ? 1 : generator.chunks({})) * ranks + 1;
}

// From fewer micro-batches than stages to three times as many, as the schedule's rule allows. All of them on 2 ranks.
std::vector<int> micro_batch_counts(const std::string& name, int ranks) {
  std::vector<int> counts;
  for (int count = 1; count <= 3 * ranks; ++count) {
    const bool is_sampled =
        ranks == 8 ? count == 3 || count == 8 || count == 24 : ranks == 2 || count % 4 <= 1 || count == 3;
    if (is_sampled && allows(name, ranks, count)) counts.push_back(count);
  }
  return counts;
}

TEST(Pipeline, EveryScheduleIsTheSerialLlama) {
  for (const std::string& name : schedules()) {
    Job job = pipeline_llama(uneven(name, job_size()), 1);
    for (const int micro_batches : micro_batch_counts(name, job_size())) {
      SCOPED_TRACE(fmt::format("{}, {} micro-batches", name, micro_batches));
      job.options.batch = job.options.micro_batches = micro_batches;
      const Outcome outcome = train(job, pipelined(job, generated(name)));
      expect_bit_identical(outcome);
      expect_balanced_books(outcome.record);
    }
  }
}

TEST(Pipeline, EveryScheduleIsTheSerialMlp) {
  for (const std::string& name : schedules()) {
    SCOPED_TRACE(name);
    const Job job = pipeline_mlp(uneven(name, job_size()), job_size());
    expect_bit_identical(train(job, pipelined(job, generated(name))));
  }
}

TEST(Pipeline, StagesAsTheyAreGiven) {
  if (job_size() != 4) return;
  const Job job = pipeline_llama(9, 6);
  for (const char* name : {"gpipe", "zb-h2"}) {
    expect_bit_identical(train(job, pipelined(job, generated(name), "1,5,1,2")));
  }
  expect_bit_identical(train(job, pipelined(job, generated("zb-v"), "1,1,1,1,1,1,1,2")));
}

// On 4 ranks every test runs with synchronous sends.
TEST(Pipeline, HangsOnNoSendThatWaitsForItsReceiver) {
  if (job_size() == 4) return;
  for (const std::string& name : schedules()) {
    for (const int micro_batches : {job_size() / 2, job_size()}) {
      if (!allows(name, job_size(), micro_batches)) continue;
      SCOPED_TRACE(fmt::format("{}, {} micro-batches", name, micro_batches));
      Job job = pipeline_llama(uneven(name, job_size()), micro_batches);
      job.options.synchronous_sends = true;
      job.options.timeout = 20;
      expect_bit_identical(train(job, pipelined(job, generated(name))));
    }
  }
}

TEST(Pipeline, InBf16) {
  if (job_size() == 8) return;  // takes long, and is shown on fewer ranks
  for (const std::string name : {"1f1b", "zb-h1", "zb-v", "dualpipe"}) {
    for (const Dtype gradient : {Dtype::f32, Dtype::bf16}) {
      SCOPED_TRACE(name);
      Job job = pipeline_llama(uneven(name, job_size()), job_size());
      job.options.dtype = Dtype::bf16;
      job.options.grad_dtype = gradient;
      const Outcome outcome = train(job, pipelined(job, generated(name)));
      expect_bit_identical(outcome);
      expect_balanced_books(outcome.record);
    }
  }
}

// Two pipelines side by side, replicas or shards of each other.
TEST(Pipeline, BesideDataParallelism) {
  if (job_size() == 2) return;
  const int ranks = job_size() / 2;
  bool is_narrow = false;
  for (const std::string& name : schedules()) {
    for (const char* dimension : {"dp_replicate", "dp_shard"}) {
      SCOPED_TRACE(fmt::format("{}, {}, {}", name, dimension, is_narrow ? "bf16" : "f32"));
      Job job = pipeline_llama(uneven(name, ranks), 2 * ranks);
      job.options.batch *= 2;
      job.options.dtype = is_narrow ? Dtype::bf16 : Dtype::f32;
      job.mesh = {{"pp", ranks}, {dimension, 2}};
      const Outcome outcome = train(job, pipelined(job, generated(name)));
      expect_bit_identical(outcome);
      expect_balanced_books(outcome.record);
      is_narrow = !is_narrow;
    }
    is_narrow = !is_narrow;
  }
}

TEST(Pipeline, BesideShardsAndTheirReplicas) {
  if (job_size() != 8) return;
  for (const char* name : {"1f1b", "zb-v", "dualpipe"}) {
    SCOPED_TRACE(name);
    Job job = pipeline_llama(5, 4);
    job.options.batch *= 4;
    job.mesh = {{"pp", 2}, {"dp_replicate", 2}, {"dp_shard", 2}};
    const Outcome outcome = train(job, pipelined(job, generated(name)));
    expect_bit_identical(outcome);
    expect_balanced_books(outcome.record);
  }
}

// The price of holding a stage whole only while it computes: a gather for every action.
TEST(Pipeline, ReshardsAfterEveryAction) {
  if (job_size() != 4) return;
  for (const char* name : {"1f1b", "zb-v"}) {
    SCOPED_TRACE(name);
    constexpr int micro_batches = 3;
    Job job = pipeline_llama(5, micro_batches);
    job.options.batch *= 2;
    job.mesh = {{"pp", 2}, {"dp_shard", 2}};
    const MakeTable always = [&](int ranks, int count) {
      return with_sharded_stages(generated(name)(ranks, count), /*reshard_always=*/true);
    };
    const Outcome outcome = train(job, pipelined(job, always));
    expect_bit_identical(outcome);
    expect_balanced_books(outcome.record);
    const Row row = generated(name)(2, micro_batches)[0];  // as many actions as in the other rank's
    const auto actions = std::count_if(row.begin(), row.end(), [](const auto& cell) { return cell.has_value(); });
    EXPECT_EQ(outcome.record.traffic.at("dp_shard").at(Operation::all_gather).calls, job.options.steps * actions);
  }
}

// A stage that is gathered twice, early, and reduced in the middle of the step.
TEST(Pipeline, ShardsAsTheTableSays) {
  if (job_size() != 2) return;
  Job job = pipeline_llama(4, 2);
  const auto table = [](int, int) {
    return parse_csv(
        "0UNSHARD,0F0,0F1,0RESHARD,0UNSHARD,0B0,0B1,0REDUCE_GRAD,0RESHARD\n"
        "1UNSHARD,1F0,1I0,1F1,1I1,1W0,1W1,1RESHARD\n",
        "table");
  };
  const Parallelize parallelize = [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto children = on_paper(*job.task, options.micro_batch, options.precision());
    const auto pipeline = std::make_shared<Pipeline>(
        model, CheckedSchedule(table(0, 0)), cut_evenly(layers_of(children), 2), children, mesh["pp"], *job.task);
    Parallelism parallelism =
        pipeline->parallelism(pipeline->shard({mesh.flatten({"dp_shard"}), mesh.flatten({"dp_replicate"})}, {}),
                              activations_of(*job.task, options), options);
    parallelism.technique = pipeline;
    return parallelism;
  };
  const Outcome outcome = train(job, parallelize);
  expect_bit_identical(outcome);
  expect_balanced_books(outcome.record);
}

// W in another order than the micro-batches': right up to rounding, and not claimed to be more.
TEST(Pipeline, ClaimsNoBitsForAnotherOrder) {
  if (job_size() != 2) return;
  Job job = pipeline_llama(4, 3);
  const auto table = [](int, int) {
    return parse_csv("0F0,0F1,0F2,0I0,0I1,0I2,0W2,0W0,0W1\n1F0,1I0,1F1,1I1,1F2,1I2,1W1,1W2,1W0\n", "table");
  };
  const Outcome outcome = train(job, pipelined(job, table));
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.record.numerics, Numerics::bounded);
  EXPECT_GT(outcome.record.check.gradient_max_rel, 0);
  EXPECT_TRUE(outcome.record.books_balanced);
}

TEST(Pipeline, TiesTheOutputToTheEmbeddingAcrossStages) {
  for (const std::string name : {"1f1b", "zb-v", "dualpipe"}) {
    SCOPED_TRACE(name);
    Job job = pipeline_llama(uneven(name, job_size()), job_size());
    job.options.llama.tied_embeddings = true;
    job.task = make_task(job.model, job.options);
    const RunRecord record = train(job, pipelined(job, generated(name))).record;
    EXPECT_TRUE(record.check.passed);
    EXPECT_EQ(record.numerics, Numerics::bounded);
    expect_balanced_books(record);
  }
}

TEST(Pipeline, EvaluatesTheSameHoweverItIsCut) {
  if (job_size() == 8) return;  // takes long, and is shown on fewer ranks
  std::vector<double> losses;
  for (const std::string name : {"gpipe", "interleaved", "zb-v", "dualpipe"}) {
    Job job = pipeline_llama(uneven("zb-v", job_size()), job_size());
    job.options.eval_every = 2;
    job.options.eval_batches = 1;
    losses.push_back(train(job, pipelined(job, generated(name))).record.evaluations.at(0).loss);
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
  EXPECT_NEAR(losses[0], losses[3], 1e-5) << "its gradients are summed in two halves";
}

TEST(Pipeline, TheCheckFindsWrongMessages) {
  if (job_size() == 8) return;  // takes long, and is shown on fewer ranks
  for (const std::string name : {"1f1b", "zb-v"}) {
    for (const CollectiveFault fault : {CollectiveFault::scaled_message, CollectiveFault::stale_message}) {
      Job job = pipeline_llama(uneven(name, job_size()), job_size());
      job.collective_fault = fault;
      const Outcome outcome = train(job, pipelined(job, generated(name)));
      EXPECT_EQ(outcome.exit_code, 1) << name;
      EXPECT_FALSE(outcome.record.check.passed) << name;
    }
  }
}

TEST(Pipeline, TheCheckFindsCopiesThatAreNotSummed) {
  if (job_size() == 8) return;  // takes long, and is shown on fewer ranks
  Job job = pipeline_llama(uneven("dualpipe", job_size()), 2 * job_size());
  expect_the_check_to_find_wrong_all_reduces(job, pipelined(job, generated("dualpipe")));
}

}  // namespace
}  // namespace ninefold::pipeline
