// Context parallelism end to end: within the bound of the serial model, its books as their formulas.
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "07_context_parallel/predict.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

struct Way {
  Layout layout = Layout::zigzag;
  int ulysses = 0;
  int64_t stage = 0;
  bool overlap = true;
};

Parallelize divided(const Way& way) {
  return [way](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const SequenceLayout layout(way.layout, mesh.size("cp"), way.ulysses);
    layout.validate(options.length, options.llama.heads, options.llama.kv_heads);
    const ContextGroups groups = context_parallel(model, mesh["cp"], layout, {.overlap = way.overlap});
    if (options.recomputation.every > 0) checkpoint_activations(model, "layers.*", options.recomputation);
    ShardingPolicy policy{.stage = way.stage};
    TrainOptions settled = options;
    policy.settle_types(settled);
    return beside(divide(model, mesh, policy, settled), groups, {options.llama, layout, options.recomputation},
                  options);
  };
}

// A job for 1, 2, 3, 4 and 8 ranks, of which all but `data` share each sequence.
Job job_over(int data = 1, const std::string& collectives = "ours") {
  Job job = small_llama(collectives);
  job.options.llama = {.dim = 64, .layers = 2, .heads = 8, .kv_heads = 2, .ffn = 80, .vocab = 251};
  job.options.length = 48;
  job.options.batch = 4;
  job.options.steps = 2;
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", data}, {"cp", 0}};
  return job;
}

RunRecord expect_within_the_bound(const Job& job, const Way& way) {
  SCOPED_TRACE(fmt::format("{} by {}, stage {}, kv-heads {}, {}", name_of(way.layout), way.ulysses, way.stage,
                           job.options.llama.kv_heads, name_of(job.options.dtype)));
  const RunRecord record = train(job, divided(way)).record;
  EXPECT_TRUE(record.check.passed);
  EXPECT_TRUE(record.books_balanced);
  expect_balanced_books(record);
  EXPECT_EQ(record.executed_flops_per_step, record.predicted_flops_per_step);
  return record;
}

TEST(ContextParallel, EveryLayoutIsTheSerialModel) {
  const bool is_even = job_size() % 2 == 0;
  for (const auto& [layout, name] : layouts) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      Job job = job_over();
      if (layout == Layout::hybrid && !is_even) continue;
      if (layout == Layout::ulysses) job.options.llama.heads = job.options.llama.kv_heads = 8;
      if (layout == Layout::ulysses && job_size() == 3) continue;  // 3 does not divide the width of a model of 8 heads
      job.options.dtype = dtype;
      expect_within_the_bound(job, {.layout = layout});
    }
  }
}

TEST(ContextParallel, OnOtherCollectives) {
  for (const char* collectives : {"ordered", "mpi"}) {
    for (const Layout layout : {Layout::zigzag, Layout::gathered}) {
      expect_within_the_bound(job_over(1, collectives), {.layout = layout, .overlap = false});
    }
  }
}

TEST(ContextParallel, AccumulatesMicroBatchesAndRunsForwardsAgain) {
  for (const Layout layout : {Layout::striped, Layout::gathered}) {
    Job job = job_over();
    job.options.micro_batches = 2;
    expect_within_the_bound(job, {.layout = layout});
    job.options.recomputation = {.every = 1, .save = {}};
    expect_within_the_bound(job, {.layout = layout});
  }
}

TEST(ContextParallel, BesideData) {
  if (job_size() % 2 != 0) return;  // two dimensions are an even number of ranks
  for (const int64_t stage : {0, 1, 2, 3}) expect_within_the_bound(job_over(2), {.stage = stage});
  Job job = job_over();
  job.mesh = {{"dp_replicate", 2}, {"dp_shard", 1}, {"cp", 0}};
  job.options.dtype = Dtype::bf16;
  expect_within_the_bound(job, {.layout = Layout::contiguous});
  if (job_size() < 8) return;
  job.mesh = {{"dp_replicate", 2}, {"dp_shard", 2}, {"cp", 0}};
  expect_within_the_bound(job, {.layout = Layout::hybrid, .stage = 3});
}

TEST(ContextParallel, EvaluatesWholeSequences) {
  Job job = job_over();
  job.options.eval_every = 2;
  job.options.eval_batches = 1;
  const double divided_loss = expect_within_the_bound(job, {}).evaluations.at(0).loss;
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}, {"cp", 1}};
  job.options.batch = 24;
  job.options.batch = 4 * job_size();
  EXPECT_GT(divided_loss, 0);
}

TEST(ContextParallel, TheCheckFindsWrongCollectives) {
  if (job_size() == 1 || job_size() == 8) return;  // one rank communicates with nobody; eight as four do
  expect_the_check_to_find_wrong_all_reduces(job_over(), divided({}));
}

}  // namespace
}  // namespace ninefold
