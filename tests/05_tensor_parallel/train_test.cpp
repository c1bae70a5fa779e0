// Tensor parallelism end to end: within the bound of the serial model, its books as their formulas.
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "05_tensor_parallel/f8.h"
#include "05_tensor_parallel/parallelize.h"
#include "05_tensor_parallel/predict.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

struct Way {
  bool sequence_parallel = true, loss_parallel = true, async = false;
  int64_t stage = 0;
  std::string f8_linears{};
  std::optional<Dtype> gather_dtype{};
};

Parallelize divided(const Way& way) {
  return [way](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const LlamaDivision division{options.llama, way.sequence_parallel, way.loss_parallel,
                                 way.async,     options.recomputation, options.f8_linears};
    const std::shared_ptr<TensorParallel> parallel = parallelize(model, mesh["tp"], division.plan());
    if (options.recomputation.every > 0) checkpoint_activations(model, "layers.*", options.recomputation);
    ShardingPolicy policy{.stage = way.stage, .gather_dtype = way.gather_dtype};
    TrainOptions settled = options;
    policy.settle_types(settled);
    const Parallelism data = divide(model, mesh, policy, settled);
    Parallelism both =
        beside(data, *parallel, mesh["tp"], division,
               {{.part = {.layers = options.llama.layers}, .micro_batches = options.micro_batches}}, options);
    both.technique = std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<TensorParallel>>>(
        data.technique, parallel);
    if (!options.f8_linears.empty() && !policy.types.quantizes()) {
      both = with_weight_scales(both, model, options.f8_linears, mesh);
    }
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

RunRecord expect_within_the_bound(Job job, const Way& way) {
  SCOPED_TRACE(fmt::format("sequence parallel {}, loss parallel {}, async {}, stage {}, kv-heads {}, {}, f8 {}",
                           way.sequence_parallel, way.loss_parallel, way.async, way.stage, job.options.llama.kv_heads,
                           name_of(job.options.dtype), way.f8_linears));
  job.options.f8_linears = way.f8_linears;
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
  expect_within_the_bound(job, {.async = true});
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

// ---- products in 8 bits -------------------------------------------------------------------------------------------

TEST(ProductsInF8, AreThoseOfOneRank) {
  if (job_size() == 8) return;  // as on four
  for (const bool sequence_parallel : {true, false}) {
    for (const auto& [dtype, layers] : {std::pair(Dtype::f32, "layers.*"),
                                        {Dtype::bf16, "layers.*"},
                                        {Dtype::f32, "layers.*.feed_forward"},
                                        {Dtype::f32, "layers.1.attention.wo"}}) {
      Job job = job_over();
      job.options.dtype = dtype;
      job.options.micro_batches = 2;
      const RunRecord record =
          expect_within_the_bound(job, {.sequence_parallel = sequence_parallel, .f8_linears = layers});
      EXPECT_GT(record.check.f8_gradient_rel, 1e-5);
      EXPECT_LT(record.check.f8_gradient_rel, 1e-2);
    }
  }
}

TEST(ProductsInF8, RunForwardsAgain) {
  if (job_size() == 8) return;  // as on four
  for (const std::set<SavedOperation>& save :
       {std::set<SavedOperation>{}, {SavedOperation::matmul}, {SavedOperation::reduce_scatter}}) {
    Job job = job_over();
    job.options.recomputation = {.every = 2, .save = save};
    expect_within_the_bound(job, {.f8_linears = "layers.*"});
    expect_within_the_bound(job, {.sequence_parallel = false, .f8_linears = "layers.*"});
  }
}

// Weights that are gathered in f8 are multiplied as they came.
TEST(ProductsInF8, BesideWeightsGatheredInF8) {
  if (job_size() == 1) return;  // two dimensions are more than one rank
  for (const int64_t stage : {0, 1, 3})
    expect_within_the_bound(job_over(2), {.stage = stage, .f8_linears = "layers.*"});
  for (const char* layers : {"", "layers.*"}) {
    expect_within_the_bound(job_over(2), {.stage = 3, .f8_linears = layers, .gather_dtype = Dtype::f8_e4m3});
  }
}

// A byte an element instead of four: 6 of a block's gathers; and a number for each of 4 + 7 tensors.
TEST(ProductsInF8, GatherAByteAnElement) {
  if (job_size() == 1 || job_size() == 8) return;  // one rank communicates with nobody; eight count as four do
  const auto sent_by_a_block = [](const std::string& f8_linears, Operation operation) {
    const auto sent = [&](int64_t layers) {
      Job job = job_over();
      job.options.llama.layers = layers;
      job.options.llama.kv_heads = 8;
      job.options.steps = 1;
      job.options.check = false;
      job.options.f8_linears = f8_linears;
      return train(job, divided({})).record.traffic.at("tp").at(operation);
    };
    const TrafficEntry three = sent(3), two = sent(2);
    return std::pair(three.calls - two.calls, three.bytes - two.bytes);
  };
  const auto [calls, bytes] = sent_by_a_block("", Operation::all_gather);
  EXPECT_EQ(sent_by_a_block("layers.*", Operation::all_gather), std::pair(calls, bytes / 4));
  EXPECT_EQ(sent_by_a_block("layers.*", Operation::all_reduce).first, 4 + 7);
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

TEST(TensorParallel, PiecesBesideShardedData) {
  if (job_size() == 1) return;  // two dimensions are more than one rank
  for (const int64_t stage : {0, 3}) {
    Job job = job_over(2);
    job.options.micro_batches = stage == 3 ? 2 : 1;
    expect_within_the_bound(job, {.async = true, .stage = stage});
  }
}

// 251 rows of the embedding and of the head over 2, 4 or 8 ranks: the last rank's end in some of no token.
TEST(TensorParallel, PaddingStaysZero) {
  for (const bool loss_parallel : {true, false}) {
    std::vector<bool> is_of_vocabulary;
    const Outcome outcome = train(job_over(), [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
      for (const Parameter* parameter : parameters_of(model)) {
        is_of_vocabulary.push_back(parameter->shape[0] == options.llama.vocab);
      }
      return divided({.loss_parallel = loss_parallel})(model, mesh, options);
    });
    for (size_t i = 0; i < is_of_vocabulary.size(); ++i) {
      if (!is_of_vocabulary[i]) continue;
      const int64_t ranks = job_size(), rows = outcome.values[i].dim(0), padding = ranks * rows - 251;
      if (job_rank() + 1 < ranks) continue;
      EXPECT_EQ(ops::absolute_max(outcome.gradients[i].rows(rows - padding, rows)), 0);
      EXPECT_EQ(ops::absolute_max(outcome.values[i].rows(rows - padding, rows)), 0);
      EXPECT_NE(ops::absolute_max(outcome.values[i].rows(0, rows - padding)), 0);
    }
  }
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
