// Context parallelism end to end: within the bound of the serial model, its books as their formulas.
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "07_context_parallel/predict.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

struct Way {
  ContextLayout layout = ContextLayout::zigzag;
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

// Two neighbours under hybrid, which three ranks do not have.
bool fits(ContextLayout layout) { return layout != ContextLayout::hybrid || job_size() % 2 == 0; }

// As many kv-heads as ranks that exchange them.
Job job_for(ContextLayout layout) {
  Job job = job_over();
  if (layout != ContextLayout::ulysses) return job;
  job.options.llama.heads = job.options.llama.kv_heads = job_size() == 3 ? 6 : 8;
  job.options.llama.dim = job_size() == 3 ? 48 : 64;
  return job;
}

TEST(ContextParallel, EveryLayoutIsTheSerialModel) {
  for (const auto& [layout, name] : layouts) {
    if (!fits(layout)) continue;
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      Job job = job_for(layout);
      job.options.dtype = dtype;
      job.options.steps = job_size() == 8 ? 1 : 2;
      expect_within_the_bound(job, {.layout = layout});
    }
  }
}

TEST(ContextParallel, OnOtherCollectives) {
  if (job_size() == 8) return;  // as on four
  for (const char* collectives : {"ordered", "mpi"}) {
    for (const ContextLayout layout : {ContextLayout::zigzag, ContextLayout::gathered, ContextLayout::ulysses}) {
      Job job = job_for(layout);
      job.options.collectives = collectives;
      expect_within_the_bound(job, {.layout = layout, .overlap = false});
    }
  }
}

TEST(ContextParallel, AccumulatesMicroBatchesAndRunsForwardsAgain) {
  if (job_size() == 8) return;  // as on four
  for (const ContextLayout layout : {ContextLayout::striped, ContextLayout::gathered, ContextLayout::ulysses}) {
    Job job = job_for(layout);
    job.options.micro_batches = 2;
    expect_within_the_bound(job, {.layout = layout});
    job.options.recomputation = {.every = 1, .save = {}};
    expect_within_the_bound(job, {.layout = layout});
    for (const SavedOperation saved : {SavedOperation::matmul, SavedOperation::attention}) {
      job.options.recomputation.save = {saved};
      expect_within_the_bound(job, {.layout = layout});
    }
  }
}

TEST(ContextParallel, BesideData) {
  if (job_size() % 2 != 0) return;  // two dimensions are an even number of ranks
  for (const int64_t stage : {0, 1, 2, 3}) expect_within_the_bound(job_over(2), {.stage = stage});
  Job job = job_over();
  job.mesh = {{"dp_replicate", 2}, {"dp_shard", 1}, {"cp", 0}};
  job.options.dtype = Dtype::bf16;
  expect_within_the_bound(job, {.layout = ContextLayout::contiguous});
  if (job_size() < 8) return;
  job.mesh = {{"dp_replicate", 2}, {"dp_shard", 2}, {"cp", 0}};
  expect_within_the_bound(job, {.layout = ContextLayout::hybrid, .stage = 3});
}

// A number of sequences that the batch does not divide: the last forward is of none.
TEST(ContextParallel, EvaluatesWholeSequences) {
  if (job_size() == 8) return;  // as on four
  const auto evaluation = [](int context) {
    Job job = job_over();
    job.options.eval_every = 2;
    job.options.eval_batches = 1;
    job.options.check = false;
    job.mesh = {{"dp_replicate", 1}, {"dp_shard", job_size() / context}, {"cp", context}};
    job.options.batch = 12;
    job.options.micro_batch = 1;
    return train(job, divided({.layout = ContextLayout::striped})).record.evaluations.at(0);
  };
  const EvaluationRecord serial = evaluation(1), shared = evaluation(job_size());
  EXPECT_NEAR(shared.loss, serial.loss, 1e-5);
  EXPECT_NEAR(shared.accuracy, serial.accuracy, 1e-3);
}

// What a rank holds of activations falls as 1 / cp, for every layout.
TEST(ContextParallel, ActivationsFallWithTheRanks) {
  const int64_t serial = llama_activation_bytes(job_over().options.llama, 4 * 48, {});
  for (const ContextLayout layout :
       {ContextLayout::contiguous, ContextLayout::striped, ContextLayout::zigzag, ContextLayout::gathered}) {
    Job job = job_over();
    job.options.check = false;
    job.options.steps = 1;
    for (const MemoryRecord& entry : train(job, divided({.layout = layout})).record.memory) {
      if (entry.kind != MemoryKind::activations) continue;
      EXPECT_NEAR(static_cast<double>(entry.measured_peak), static_cast<double>(serial) / job_size(),
                  0.02 * static_cast<double>(serial) / job_size());
    }
  }
}

// A limit that whole sequences do not fit in, but parts of them do.
TEST(ContextParallel, TrainsWithinALimitThatOneRankRefuses) {
  if (job_size() == 1) return;  // one rank shares with nobody
  Job job = job_over();
  job.options.length = 960;
  job.options.batch = job_size();
  job.options.micro_batch = 1;
  job.options.steps = 1;
  job.options.check = false;
  job.options.memory_limit = "6MB";
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}, {"cp", 1}};
  try {
    train(job, divided({}));
    ADD_FAILURE() << "nothing was refused";
  } catch (const UserError& error) {
    const std::string sentence = error.what();
    EXPECT_NE(sentence.find("memory limit of 6.00 MB has no room for"), std::string::npos) << sentence;
    EXPECT_NE(sentence.find(" of activations"), std::string::npos) << sentence;
  }
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 1}, {"cp", 0}};
  EXPECT_TRUE(train(job, divided({})).record.books_balanced);
}

// Rates make virtual time repeat itself.
TEST(ContextParallel, TheRingHidesWhatItWouldExpose) {
  if (job_size() == 1 || job_size() == 8) return;  // one rank communicates with nobody; eight as four do
  const auto exposed = [](bool overlap) {
    Job job = job_over();
    job.options.check = false;
    job.options.llama.layers = 1;
    job.options.length = 192;
    job.options.cluster = "cp=1GB/s,1us compute=5GF/s";
    const RunRecord record = train(job, divided({.overlap = overlap})).record;
    EXPECT_TRUE(record.books_balanced);
    return record.exposed.virtual_milliseconds;
  };
  EXPECT_LT(exposed(true), 0.8 * exposed(false));
}

// Of the sum over ranks, and of what each layout sends.
TEST(ContextParallel, TheCheckFindsWrongCommunication) {
  if (job_size() == 1 || job_size() == 8) return;  // one rank communicates with nobody; eight as four do
  expect_the_check_to_find_wrong_all_reduces(job_over(), divided({}));
  using Fault = CollectiveFault;
  for (const auto& [layout, faults] :
       {std::pair{ContextLayout::zigzag, std::vector{Fault::scaled_message, Fault::stale_message}},
        {ContextLayout::gathered,
         {Fault::drop_one_rank, Fault::stale_buffer, Fault::wrong_group, Fault::reorder_chunks}},
        {ContextLayout::ulysses,
         {Fault::drop_one_rank, Fault::stale_buffer, Fault::wrong_group, Fault::reorder_chunks}}}) {
    for (const Fault fault : faults) {
      Job job = job_for(layout);
      job.collective_fault = fault;
      EXPECT_FALSE(train(job, divided({.layout = layout})).record.check.passed)
          << name_of(layout) << ", fault " << static_cast<int>(fault);
    }
  }
}

TEST(ContextParallel, TheCheckFindsWrongOperations) {
  if (job_size() != 2) return;  // the same kernels on any number
  expect_the_check_to_find({KernelFault::skip_dk, KernelFault::stale_dv, KernelFault::rope_not_reversed}, job_over(),
                           divided({}));
}

// Everything with everything: what the tests above try in pairs.
TEST(WholeProduct, OfLayoutsHeadsTypesAndStages) {
  for (const auto& [layout, name] : layouts) {
    for (const int64_t kv_heads : {1, 2, 4, 8}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        for (const int64_t stage : {0, 1, 2, 3}) {
          const int data = stage > 0 ? 2 : 1;
          if (job_size() % data != 0) continue;
          Job job = job_over(data);
          const int context = job_size() / data;
          const int neighbours = layout == ContextLayout::ulysses ? context : layout == ContextLayout::hybrid ? 2 : 1;
          if (context % neighbours != 0 || kv_heads % neighbours != 0) continue;
          job.options.llama.kv_heads = kv_heads;
          job.options.dtype = dtype;
          for (const bool overlap : {true, false}) {
            expect_within_the_bound(job, {.layout = layout, .stage = stage, .overlap = overlap});
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace ninefold
