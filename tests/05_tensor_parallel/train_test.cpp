// Tensor parallelism end to end: within the bound of the serial model, its books as their formulas.
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "05_tensor_parallel/parallelize.h"
#include "05_tensor_parallel/predict.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

struct Way {
  bool sequence_parallel = true, loss_parallel = true, async = false;
  int64_t stage = 0;
};

Parallelize divided(const Way& way) {
  return [way](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const LlamaDivision division{options.llama, way.sequence_parallel, way.loss_parallel, way.async,
                                 options.recomputation};
    const std::shared_ptr<TensorParallel> parallel = parallelize(model, mesh["tp"], division.plan());
    if (options.recomputation.every > 0) checkpoint_activations(model, "layers.*", options.recomputation);
    ShardingPolicy policy{.stage = way.stage};
    TrainOptions settled = options;
    policy.settle_types(settled);
    const Parallelism data = divide(model, mesh, policy, settled);
    Parallelism both =
        beside(data, *parallel, mesh["tp"], division,
               {{.part = {.layers = options.llama.layers}, .micro_batches = options.micro_batches}}, options);
    both.technique = std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<TensorParallel>>>(
        data.technique, parallel);
    return both;
  };
}

// A job for 1, 2, 4 and 8 ranks, of which all but `data` share each layer.
Job job_over(int data = 1, const std::string& collectives = "ours") {
  Job job = small_llama(collectives);
  job.options.llama = {.dim = 64, .layers = 2, .heads = 8, .kv_heads = 2, .ffn = 80, .vocab = 251};
  job.options.batch = 4;
  job.options.steps = 2;
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", data}, {"tp", 0}};
  return job;
}

RunRecord expect_within_the_bound(const Job& job, const Way& way) {
  SCOPED_TRACE(fmt::format("sequence parallel {}, loss parallel {}, async {}, stage {}, kv-heads {}, {}",
                           way.sequence_parallel, way.loss_parallel, way.async, way.stage, job.options.llama.kv_heads,
                           name_of(job.options.dtype)));
  const RunRecord record = train(job, divided(way)).record;
  EXPECT_TRUE(record.check.passed);
  EXPECT_TRUE(record.books_balanced);
  expect_balanced_books(record);
  return record;
}

// Pairs of choices; async is a form of sequence parallelism.
TEST(TensorParallel, EveryFormIsTheSerialModel) {
  struct Form {
    int64_t kv_heads;
    Way way;
    Dtype dtype;
  };
  constexpr bool on = true, off = false;
  for (const auto& [kv_heads, way, dtype] : {Form{1, {off, off, off}, Dtype::f32},
                                             {1, {on, on, on}, Dtype::bf16},
                                             {2, {off, off, off}, Dtype::bf16},
                                             {2, {on, on, on}, Dtype::f32},
                                             {4, {off, on, off}, Dtype::f32},
                                             {4, {on, off, off}, Dtype::bf16},
                                             {8, {off, on, off}, Dtype::bf16},
                                             {8, {on, off, on}, Dtype::f32}}) {
    Job job = job_over();
    job.options.llama.kv_heads = kv_heads;
    job.options.dtype = dtype;
    expect_within_the_bound(job, way);
  }
}

TEST(TensorParallel, OnOtherCollectives) {
  for (const char* collectives : {"ordered", "mpi"}) expect_within_the_bound(job_over(1, collectives), {});
}

TEST(TensorParallel, AccumulatesMicroBatches) {
  Job job = job_over();
  job.options.micro_batches = 2;
  expect_within_the_bound(job, {});
}

TEST(TensorParallel, RunsForwardsAgain) {
  using Saves = std::set<SavedOperation>;
  const Way by_rows{}, by_pieces{.async = true}, whole{.sequence_parallel = false};
  for (const auto& [save, way] :
       {std::pair{Saves{}, by_rows},
        {Saves{}, whole},
        {Saves{SavedOperation::reduce_scatter}, by_pieces},
        {Saves{SavedOperation::matmul}, by_rows},
        {Saves{SavedOperation::matmul}, whole},
        {Saves{SavedOperation::attention, SavedOperation::matmul, SavedOperation::reduce_scatter}, by_pieces}}) {
    Job job = job_over();
    job.options.recomputation = {.every = 1, .save = save};
    const RunRecord record = expect_within_the_bound(job, way);
    EXPECT_EQ(record.executed_flops_per_step, record.predicted_flops_per_step);
  }
}

TEST(TensorParallel, BesideShardedData) {
  if (job_size() == 1) return;  // two dimensions are more than one rank
  for (const int64_t stage : {0, 1, 2, 3}) expect_within_the_bound(job_over(2), {.stage = stage});
  Job job = job_over(2);
  job.options.dtype = Dtype::bf16;
  job.options.recomputation = {.every = 1, .save = {}};
  expect_within_the_bound(job, {.stage = 3});
  if (job_size() == 8) expect_within_the_bound(job_over(4), {.stage = 3});
}

// Two sums in each direction of a block, as many gathers, and as many again of inputs that are kept as shards.
TEST(TensorParallel, CountsOfABlock) {
  if (job_size() == 1 || job_size() == 8) return;  // one rank communicates with nobody; eight count as four do
  const auto calls = [](bool sequence_parallel, int64_t layers, Operation operation) {
    Job job = job_over();
    job.options.llama.layers = layers;
    job.options.llama.kv_heads = 8;
    job.options.steps = 1;
    const RunRecord record = train(job, divided({.sequence_parallel = sequence_parallel})).record;
    const auto entry = record.traffic.at("tp").find(operation);
    return entry == record.traffic.at("tp").end() ? 0 : entry->second.calls;
  };
  const auto of_a_block = [&](bool sequence_parallel, Operation operation) {
    return calls(sequence_parallel, 3, operation) - calls(sequence_parallel, 2, operation);
  };
  EXPECT_EQ(of_a_block(false, Operation::all_reduce), 2 + 2);
  EXPECT_EQ(of_a_block(true, Operation::reduce_scatter), 2 + 2);
  EXPECT_EQ(of_a_block(true, Operation::all_gather), 2 + 2 + 2);
  EXPECT_EQ(of_a_block(true, Operation::all_reduce), 0);
}

// On machines where a gather takes about as long as the matmul beside it. Rates make virtual time repeat itself.
TEST(TensorParallel, PiecesHideWhatTheyExpose) {
  if (job_size() == 1) return;  // one rank communicates with nobody
  const auto exposed = [](bool async) {
    Job job = job_over();
    job.options.check = false;
    job.options.cluster = "tp=1GB/s,1us compute=1GF/s";
    const RunRecord record = train(job, divided({.async = async})).record;
    EXPECT_TRUE(record.books_balanced);
    return record.exposed.virtual_milliseconds;
  };
  EXPECT_LT(exposed(true), 0.5 * exposed(false));
}

TEST(TensorParallel, TheCheckFindsWrongCollectives) {
  if (job_size() == 8) return;  // as on four
  for (const bool sequence_parallel : {false, true}) {
    expect_the_check_to_find_wrong_all_reduces(job_over(), divided({.sequence_parallel = sequence_parallel}));
  }
}

}  // namespace
}  // namespace ninefold
