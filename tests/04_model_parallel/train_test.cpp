// A model in stages, one a rank: to the bit the serial model, its books to the byte, and idle (n-1)/n of the time.
#include "04_model_parallel/model_parallel.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

Parallelize in_stages(const Job& job, const std::string& layers_per_stage = "") {
  return [task = job.task, layers_per_stage](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const Group& pipeline = mesh["pp"];
    const auto children = on_paper(*task, options.micro_batch, options.precision());
    RanksOfStages ranks_of;
    for (int rank = 0; rank < pipeline.size(); ++rank) ranks_of.push_back({rank});
    const auto stages = cut(layers_of(children), pipeline.size(), layers_per_stage);
    const auto staged = std::make_shared<StagedModel>(model, stages, ranks_of, children, pipeline, *task);
    const auto parallel = std::make_shared<ModelParallel>(*staged);
    Parallelism parallelism = parallel->parallelism(*task, options);
    parallelism.technique = std::make_shared<std::pair<decltype(staged), decltype(parallel)>>(staged, parallel);
    return parallelism;
  };
}

Job in_a_pipeline(Job job) {
  job.mesh = {{"pp", 0}};
  job.options.llama.layers = 5;
  job.task = task_of(job);
  return job;
}

Job small_mlp() {
  Job job = small_mnist_cnn();
  job.model = "mlp";
  job.options.llama.dim = 24;
  return job;
}

void expect_identical(const Job& job, const Parallelize& parallelize) {
  const Outcome outcome = train(job, parallelize);
  const RunRecord& record = outcome.record;
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(record.numerics, Numerics::bit_identical);
  EXPECT_EQ(record.check.steps, 4);
  EXPECT_EQ(record.check.loss_max_abs, 0);
  EXPECT_EQ(record.check.gradient_max_rel, 0);
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  EXPECT_TRUE(record.books_balanced);
}

TEST(ModelParallel, IsTheSerialModel) {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (Job job : {in_a_pipeline(small_llama()), in_a_pipeline(small_mlp()), in_a_pipeline(small_mnist_cnn())}) {
      SCOPED_TRACE(job.model);
      job.options.dtype = dtype;
      expect_identical(job, in_stages(job));
    }
  }
}

TEST(ModelParallel, KeepsItsBooks) {
  const Job job = in_a_pipeline(small_llama());
  expect_balanced_books(train(job, in_stages(job)).record);
}

// The embedding's table is on the first rank and on the last; its gradient is the sum of both.
TEST(ModelParallel, SumsTheGradientsOfTiedEmbeddings) {
  Job job = in_a_pipeline(small_llama());
  job.options.llama.tied_embeddings = true;
  job.task = make_task(job.model, job.options);
  const RunRecord record = train(job, in_stages(job)).record;
  EXPECT_TRUE(record.check.passed);
  EXPECT_EQ(record.numerics, job_size() == 1 ? Numerics::bit_identical : Numerics::bounded);
  expect_balanced_books(record);
  if (job_size() == 1) return;
  EXPECT_EQ(record.traffic.at("pp").count(Operation::all_reduce), job_rank() % (job_size() - 1) == 0 ? 1u : 0u);
  job.options.steps = 1;
  job.collective_fault = CollectiveFault::wrong_group;
  EXPECT_FALSE(train(job, in_stages(job)).record.check.passed);
}

TEST(ModelParallel, CutsWhereItIsTold) {
  if (job_size() != 3) return;
  const Job job = in_a_pipeline(small_llama());
  expect_identical(job, in_stages(job, "1,3,1"));
}

TEST(ModelParallel, EvaluatesLikeTheWholeModel) {
  Job job = in_a_pipeline(small_llama());
  job.options.steps = 1;
  job.options.eval_every = 1;
  job.options.eval_batches = 1;
  const RunRecord record = train(job, in_stages(job)).record;
  const auto serial = job.task->make_model();
  const DeviceHandle device = make_cpu_device();
  // One step at learning rate 0 leaves the initial values.
  job.options.schedule.lr = job.options.schedule.min_lr = 0;
  const RunRecord at_start = train(job, in_stages(job)).record;
  materialize(*serial, device, {}, job.options.seed);
  std::vector<int64_t> samples(static_cast<size_t>(job.options.batch));
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<int64_t>(i);
  const Score score = evaluate(*serial, *job.task, device, job.task->load(device, Split::evaluation, samples));
  const auto rows = static_cast<double>(job.options.batch * job.options.length);
  ASSERT_EQ(at_start.evaluations.size(), 1u);
  EXPECT_EQ(at_start.evaluations[0].loss, score.loss_sum / rows);
  EXPECT_EQ(at_start.evaluations[0].accuracy, score.correct / rows);
  EXPECT_NE(record.evaluations[0].loss, at_start.evaluations[0].loss);
}

TEST(ModelParallel, IsIdleMostOfTheTime) {
  Job job = in_a_pipeline(small_llama());
  job.options.llama.layers = 12;
  job.task = make_task("llama", job.options);
  job.options.cluster = "pp=100GB/s,1us compute=1GF/s";
  const RunRecord record = train(job, in_stages(job)).record;
  const double ranks = job_size();
  ASSERT_TRUE(record.bubble);
  EXPECT_DOUBLE_EQ(record.bubble->predicted, (ranks - 1) / ranks);
  EXPECT_NEAR(record.bubble->measured, record.bubble->predicted, 0.03);
}

TEST(ModelParallel, TheCheckFindsWrongMessages) {
  if (job_size() == 1) return;  // nothing is sent
  for (const CollectiveFault fault : {CollectiveFault::scaled_message, CollectiveFault::stale_message}) {
    Job job = in_a_pipeline(small_llama());
    job.collective_fault = fault;
    const Outcome outcome = train(job, in_stages(job));
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_FALSE(outcome.record.check.passed);
  }
}

TEST(ModelParallel, TheCheckFindsWrongOperations) {
  if (job_size() > 2) return;  // the operations are the same on any number of ranks
  const Job job = in_a_pipeline(small_llama());
  expect_the_check_to_find(llama_faults, job, in_stages(job));
}

}  // namespace
}  // namespace ninefold
