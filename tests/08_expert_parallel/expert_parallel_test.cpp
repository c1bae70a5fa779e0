// Expert parallelism end to end: within the bound of the serial model whatever divides the experts, its books as their
// formulas.
#include "08_expert_parallel/expert_parallel.h"

#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "08_expert_parallel/predict.h"
#include "common/nn/replace.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

// Breaks what was parallelised.
using Change = std::function<void(Model& model, Parallelism& parallelism)>;

Parallelize divided(int64_t stage = 0, const Change& change = {}) {
  return [stage, change](Model& model, const Mesh& mesh, const TrainOptions& options) {
    const auto tensor = mesh.has("expert_tp") ? std::optional(mesh["expert_tp"]) : std::nullopt;
    const std::shared_ptr<ExpertParallel> parallel = expert_parallel(model, mesh["ep"], tensor);
    if (options.recomputation.every > 0) checkpoint_activations(model, "layers.*", options.recomputation);
    ShardingPolicy policy{.stage = stage};
    TrainOptions settled = options;
    policy.settle_types(settled);
    Parallelism both = beside(divide(model, mesh, policy, settled), parallel, options);
    if (change) change(model, both);
    return both;
  };
}

// A job for 2, 4 and 8 ranks; those that dp_replicate and dp_shard leave over divide the experts.
Job job_of(const MoeConfig& moe, int dp_replicate = 1, int dp_shard = 1) {
  Job job = small_llama();
  job.options.llama.ffn = 24;
  job.options.llama.moe = moe;
  job.options.batch = 8;
  job.options.steps = 2;
  const int ep = std::min<int>(job_size() / dp_replicate / dp_shard, static_cast<int>(moe.experts));
  job.mesh = {{"dp_replicate", 0}, {"dp_shard", dp_shard}, {"ep", ep}};
  return job;
}

RunRecord expect_within_the_bound(const Job& job, int64_t stage = 0) {
  const MoeConfig& moe = job.options.llama.moe;
  SCOPED_TRACE(fmt::format("{} experts, top-k {}, router {}, {}, stage {}", moe.experts, moe.top_k,
                           static_cast<int>(moe.router), name_of(job.options.dtype), stage));
  const RunRecord record = train(job, divided(stage)).record;
  EXPECT_TRUE(record.check.passed);
  EXPECT_TRUE(record.books_balanced);
  expect_balanced_books(record);
  return record;
}

// Pairs of choices; eight ranks, for which there are no cores, meet every choice once.
TEST(ExpertParallel, EveryFormIsTheSerialModel) {
  const auto softmax = RouterKind::softmax, topk_softmax = RouterKind::topk_softmax, sigmoid = RouterKind::sigmoid;
  const MoeConfig forms[] = {
      {.experts = 4, .top_k = 1, .router = softmax},
      {.experts = 4, .top_k = 2, .capacity_factor = 1, .router = sigmoid, .balance = Balance::bias},
      {.experts = 4, .top_k = 4, .router = topk_softmax, .balance_scope = BalanceScope::batch},
      {.experts = 8, .top_k = 1, .capacity_factor = 1, .router = sigmoid, .z_loss_coefficient = 0.01},
      {.experts = 8, .top_k = 2, .router = topk_softmax, .balance = Balance::bias},
      {.experts = 8,
       .top_k = 4,
       .capacity_factor = 0.75,
       .drop_policy = DropPolicy::probs,
       .router = softmax,
       .shared_experts = 1},
      {.experts = 16, .top_k = 1, .router = topk_softmax, .balance = Balance::none},
      {.experts = 16, .top_k = 2, .router = softmax, .z_loss_coefficient = 0.01},
      {.experts = 16, .top_k = 4, .capacity_factor = 1.25, .router = sigmoid, .shared_experts = 2}};
  for (size_t form = 0; form < std::size(forms); form += job_size() == 8 ? 4 : 1) {
    Job job = job_of(forms[form]);
    job.options.dtype = form % 2 == 0 ? Dtype::f32 : Dtype::bf16;
    expect_within_the_bound(job);
  }
  Job bf16 = job_of(forms[5]);
  bf16.options.dtype = Dtype::bf16;
  expect_within_the_bound(bf16);
}

TEST(ExpertParallel, OnOtherCollectives) {
  if (job_size() == 8) return;  // as on four
  for (const char* collectives : {"ordered", "mpi"}) {
    Job job = job_of({.experts = 8, .top_k = 2});
    job.options.collectives = collectives;
    expect_within_the_bound(job);
  }
}

TEST(ExpertParallel, AccumulatesMicroBatchesAndRunsForwardsAgain) {
  Job job = job_of({.experts = 8, .top_k = 2, .capacity_factor = 1});
  job.options.batch = 16;
  job.options.micro_batches = 2;
  expect_within_the_bound(job);
  using Saves = std::set<SavedOperation>;
  for (const Saves& save : {Saves{}, Saves{SavedOperation::matmul, SavedOperation::attention}}) {
    job.options.recomputation = {.every = 1, .save = save};
    expect_within_the_bound(job);
  }
  job.options.recomputation = {.every = 2, .save = {}};
  expect_within_the_bound(job, /*stage=*/3);
}

// Two ranks hold the same experts, or shards of them.
TEST(ExpertParallel, BesideDataParallelism) {
  const MoeConfig moe{.experts = 8, .top_k = 2, .shared_experts = 1};
  if (job_size() == 8) {
    expect_within_the_bound(job_of(moe, 2, 2), 3);
    return;
  }
  expect_within_the_bound(job_of(moe, /*dp_replicate=*/2));
  for (const int64_t stage : {0, 1, 2, 3}) expect_within_the_bound(job_of(moe, 1, /*dp_shard=*/2), stage);
  Job job = job_of(moe, 1, 2);
  job.options.dtype = Dtype::bf16;
  job.options.micro_batches = 2;
  job.options.batch = 16;
  expect_within_the_bound(job, 3);
}

// Ranks that share their tokens and every expert, in exchanges of half as many.
TEST(ExpertParallel, CutsEveryExpert) {
  if (job_size() == 8) return;  // as on four
  Job job = job_of({.experts = 8, .top_k = 2, .shared_experts = 1});
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 1}, {"ep", 0}, {"expert_tp", 2}};
  expect_within_the_bound(job);
  job.options.recomputation = {.every = 1, .save = {SavedOperation::matmul}};
  expect_within_the_bound(job);
  job.options.dtype = Dtype::bf16;
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}, {"ep", 1}, {"expert_tp", 2}};
  expect_within_the_bound(job, /*stage=*/3);
}

// Where every token visits every expert nobody needs to count: each rank has N rows for each expert.
TEST(ExpertParallel, BytesOfTheExchange) {
  const int64_t experts = 8;
  const Job job = job_of({.experts = experts, .top_k = experts});
  const RunRecord record = expect_within_the_bound(job);
  const int64_t ranks = job_size(), steps = 2, layers = 2, tokens = 8 / ranks * 16, dim = 32;
  const TrafficEntry& rows = record.traffic.at("ep").at(Operation::all_to_all);
  EXPECT_EQ(rows.calls, steps * layers * 4);
  EXPECT_EQ(rows.bytes, steps * layers * 4 * (ranks - 1) * (experts / ranks) * tokens * dim * 4);
  const TrafficEntry& counts = record.traffic.at("ep").at(Operation::all_gather);
  EXPECT_EQ(counts.bytes, steps * layers * (ranks - 1) * experts * 4);
}

// ---- routings that do not come by themselves ------------------------------------------------------------------------

// Chooses what it is told, of every token the same.
class FixedRouter : public Router {
 public:
  FixedRouter(int64_t experts, std::vector<int32_t> chosen) : experts_(experts), chosen_(std::move(chosen)) {}
  Routing forward(const Tensor& x, Saved&) override {
    Routing routing{.experts = experts_, .top_k = static_cast<int64_t>(chosen_.size()), .chosen = {}, .gates = {}};
    for (int64_t token = 0; token < x.dim(0); ++token) {
      routing.chosen.insert(routing.chosen.end(), chosen_.begin(), chosen_.end());
    }
    routing.gates.assign(routing.chosen.size(), 0.5f);
    routing.place_of_choice.assign(routing.chosen.size(), 0);
    dim_ = x.dim(1);
    return routing;
  }
  Tensor backward(const Tensor& dgates, Saved&) override {
    return Tensor::zeros(dgates.device(), {dgates.dim(0), dim_}, Dtype::f32);
  }

 private:
  int64_t experts_, dim_ = 0;
  std::vector<int32_t> chosen_;
};

std::unique_ptr<Model> fixed_model(const LlamaConfig& config, const std::vector<int32_t>& chosen) {
  auto model = make_llama(config);
  for_each_router(*model, [&](const std::string&, std::unique_ptr<Router>& router) {
    router = std::make_unique<FixedRouter>(config.moe.experts, chosen);
  });
  return model;
}

// Takes the sequences of `rank` through the model, into its gradients.
void add_gradients_of(Model& model, const Task& task, const TrainOptions& options, const DeviceHandle& device, int rank,
                      int ranks) {
  GlobalBatch batch{.step = 0, .indices = {}};
  for (int64_t i = 0; i < options.batch; ++i) batch.indices.push_back(i);
  for (const MicroBatch& part : micro_batches(batch, task, options, rank, ranks)) {
    const Batch data = task.load(device, Split::train, part.indices);
    forward_backward(model, data.x, make_step(task, device, data, part));
  }
}

void expect_gradients_of_the_whole(const MoeConfig& moe, const std::vector<int32_t>& chosen) {
  Job job = job_of(moe);
  World world(job.options.world(), collectives::ours());
  const Mesh mesh(world, {{"ep", 0}});
  job.options.resolve(world.size());
  const auto task = make_task("llama", job.options);
  const auto whole = fixed_model(job.options.llama, chosen), own = fixed_model(job.options.llama, chosen);
  const auto parallel = expert_parallel(*own, mesh["ep"]);
  for (Model* const model : {whole.get(), own.get()}) {
    materialize(*model, world.device(), {}, job.options.seed);
    for (Parameter* parameter : parameters_of(*model)) parameter->zero_gradient(world.size());
  }
  add_gradients_of(*own, *task, job.options, world.device(), world.rank(), world.size());
  for (int rank = 0; rank < world.size(); ++rank) {
    add_gradients_of(*whole, *task, job.options, world.device(), rank, world.size());
  }
  const auto wholes = parameters_of(*whole), owns = parameters_of(*own);
  for (size_t i = 0; i < owns.size(); ++i) {
    owns[i]->complete_gradient();
    wholes[i]->complete_gradient();
    if (owns[i]->placement.shards.empty()) mesh["ep"].all_reduce(owns[i]->gradient);
    const std::vector<double> expected = doubles(wholes[i]->gradient), result = doubles(owns[i]->gradient);
    double squares = 0, error = 0;
    for (const Piece& piece : owns[i]->placement.pieces(owns[i]->shape)) {
      for (int64_t j = 0; j < piece.length; ++j) {
        const double of_whole = expected[static_cast<size_t>(piece.global_offset + j)];
        const double difference = result[static_cast<size_t>(piece.local_offset + j)] - of_whole;
        ASSERT_TRUE(std::isfinite(difference)) << owns[i]->name;
        squares += of_whole * of_whole;
        error += difference * difference;
      }
    }
    EXPECT_LE(std::sqrt(error), 1e-5 * std::sqrt(squares) + 1e-9) << owns[i]->name;
  }
}

TEST(ExpertParallel, ExpertsWithoutTokensAndWithAll) {
  expect_gradients_of_the_whole({.experts = 8, .top_k = 1}, {0});
  expect_gradients_of_the_whole({.experts = 8, .top_k = 1}, {7});
  expect_gradients_of_the_whole({.experts = 8, .top_k = 2}, {5, 2});
  // One token of a sequence for each of two experts, nothing for the others.
  expect_gradients_of_the_whole({.experts = 8, .top_k = 2, .capacity_factor = 0.01}, {3, 4});
}

// ---- the check itself -----------------------------------------------------------------------------------------------

void expect_the_check_to_find(const Job& job, const Change& change) {
  const Outcome outcome = train(job, divided(0, change));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_FALSE(outcome.record.check.passed);
}

Change scaled_expert_gradients(float factor) {
  return [factor](Model& model, Parallelism& parallelism) {
    parallelism.reduce_gradients = [reduce = parallelism.reduce_gradients, &model, factor] {
      reduce();
      for (const Parameter* parameter : parameters_of(model)) {
        if (!parameter->placement.shards.empty()) ops::scale_(parameter->owned.gradient, factor);
      }
    };
  };
}

TEST(ExpertParallel, TheCheckFindsWrongGradients) {
  if (job_size() == 8) return;  // as on four
  const MoeConfig moe{.experts = 8, .top_k = 2};
  expect_the_check_to_find_wrong_all_reduces(job_of(moe), divided());
  // The classic mistakes: an average over ranks whose tokens are in the sum already, or one sum too many.
  const auto ranks = static_cast<float>(job_size());
  for (const float factor : {1 / ranks, ranks}) expect_the_check_to_find(job_of(moe), scaled_expert_gradients(factor));
}

}  // namespace
}  // namespace ninefold
