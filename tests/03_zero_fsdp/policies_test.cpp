// The policies of sharding: mixed precision, where what is owned lies, and how it travels. Each is the serial model to
// the bit under ordered collectives, and its books balance to the byte.
#include <limits>

#include "tests/support/sharded.h"

namespace ninefold {
namespace {

int64_t measured(const RunRecord& record, MemoryKind kind) {
  return record.memory[static_cast<size_t>(kind)].measured_peak;
}

int64_t sent(const RunRecord& record, Operation operation) {
  const auto dimension = record.traffic.find("dp_shard");
  return dimension == record.traffic.end() ? 0 : dimension->second.at(operation).bytes;
}

// ---- mixed precision --------------------------------------------------------------------------------------------

TEST(MixedPrecision, OfF32ShardsIsTheSerialModel) {
  for (const Dtype gradient : {Dtype::f32, Dtype::bf16}) {
    Job job = odd_llama();
    job.options.grad_dtype = gradient;
    expect_identical(job, {.param_dtype = Dtype::bf16});
    expect_identical(job, {.prefetch = 0, .param_dtype = Dtype::bf16, .output_dtype = Dtype::f32});
  }
}

// Whether the master values are the shards or lie in the optimizer, the same numbers are computed.
TEST(MixedPrecision, OfF32ShardsIsThatOfMasterValues) {
  Job zero = odd_llama();
  zero.options.dtype = Dtype::bf16;
  const Outcome masters = expect_identical(zero, {}),
                shards = expect_identical(odd_llama(), {.param_dtype = Dtype::bf16});
  for (size_t step = 0; step < masters.record.steps.size(); ++step) {
    EXPECT_EQ(masters.record.steps[step].loss, shards.record.steps[step].loss);
    EXPECT_EQ(masters.record.steps[step].gradient_norm, shards.record.steps[step].gradient_norm);
  }
  EXPECT_TRUE(same_bits(masters.gradients, shards.gradients));
  for (size_t i = 0; i < masters.values.size(); ++i) {
    ASSERT_EQ(shards.values[i].dtype(), Dtype::f32);
    EXPECT_TRUE(same_bits(masters.values[i], ops::cast(shards.values[i], Dtype::bf16)));
  }
}

// p, g and o bytes a parameter of the shard: of the value, of its gradient, and of AdamW's states with the master
// value.
TEST(MixedPrecision, TakesTheBytesOfItsForm) {
  struct Form {
    Dtype dtype, grad_dtype;
    std::optional<Dtype> param_dtype;
    int64_t p, g, o;
  };
  for (const Form& form :
       {Form{Dtype::f32, Dtype::f32, {}, 4, 4, 8}, Form{Dtype::bf16, Dtype::f32, {}, 2, 4, 12},
        Form{Dtype::bf16, Dtype::bf16, {}, 2, 2, 12}, Form{Dtype::f32, Dtype::f32, Dtype::bf16, 4, 4, 8},
        Form{Dtype::f32, Dtype::bf16, Dtype::bf16, 4, 2, 8}}) {
    Job job = odd_llama();
    job.options.llama = {.dim = 256, .layers = 1, .heads = 2, .kv_heads = 1, .ffn = 32, .vocab = 256};  // no padding
    job.options.dtype = form.dtype;
    job.options.grad_dtype = form.grad_dtype;
    job.options.steps = 1;
    const RunRecord record = expect_identical(job, {.wrap = "size:1000000", .param_dtype = form.param_dtype}).record;
    const int64_t shard = llama_parameters(job.options.llama) / job_size();
    EXPECT_EQ(measured(record, MemoryKind::parameters), form.p * shard);
    EXPECT_EQ(measured(record, MemoryKind::gradients), form.g * shard);
    EXPECT_EQ(measured(record, MemoryKind::optimizer), form.o * shard);
  }
}

// Gradients travel in f32 and values in bf16: 6 bytes a parameter, times (n - 1) / n, beside an all_reduce's 8.
TEST(MixedPrecision, SendsSixBytesAParameter) {
  for (const int64_t stage : {1, 2, 3}) {
    Job job = odd_llama("ours");
    job.options.steps = 1;
    if (stage < 3) job.options.dtype = Dtype::bf16;
    const std::optional<Dtype> param_dtype = stage == 3 ? std::optional(Dtype::bf16) : std::nullopt;
    const RunRecord record =
        train_with(job, {.stage = stage, .reshard = Reshard::never, .param_dtype = param_dtype}).record;
    EXPECT_TRUE(record.check.passed);
    expect_balanced_books(record);
    EXPECT_EQ(sent(record, Operation::reduce_scatter), 2 * sent(record, Operation::all_gather));
    EXPECT_EQ(sent(record, Operation::all_gather) > 0, job_size() > 1);
  }
}

TEST(MixedPrecision, SumsInTheTypeThatIsAskedFor) {
  Job job = odd_llama();
  job.options.dtype = job.options.grad_dtype = Dtype::bf16;
  job.options.steps = 1;
  for (const int64_t stage : {1, 2, 3}) {
    const RunRecord record = train_with(job, {.stage = stage, .reduce_dtype = Dtype::bf16}).record;
    EXPECT_TRUE(record.check.passed);
    EXPECT_TRUE(record.books_balanced);
    const RunRecord wide = train_with(job, {.stage = stage}).record;
    EXPECT_EQ(2 * sent(record, Operation::reduce_scatter), sent(wide, Operation::reduce_scatter));
  }
}

// The example's CNN takes f32 images and has a loss of its own.
TEST(MixedPrecision, OfTheMnistCnn) {
  Job job = small_mnist_cnn("ordered");
  job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}};
  job.options.steps = 1;
  expect_identical(job, {.wrap = "size:20000", .param_dtype = Dtype::bf16, .output_dtype = Dtype::f32});
}

// ---- offload ----------------------------------------------------------------------------------------------------

// What is divided leaves the device, and nothing else; the numbers stay what they are.
TEST(Offload, MovesWhatIsDividedToTheHost) {
  for (const int64_t stage : {1, 2, 3}) {
    const RunRecord on_device = expect_identical(odd_llama(), {.stage = stage}).record;
    const RunRecord offloaded = expect_identical(odd_llama(), {.stage = stage, .offload = Offload::pinned}).record;
    const auto bytes = [&](MemoryKind kind) { return measured(on_device, kind); };
    const int64_t values = stage == 3 ? bytes(MemoryKind::parameters) : 0;
    const int64_t gradients = stage >= 2 ? bytes(MemoryKind::gradients) : 0;
    EXPECT_EQ(measured(offloaded, MemoryKind::host), values + gradients + bytes(MemoryKind::optimizer));
    EXPECT_EQ(measured(offloaded, MemoryKind::parameters), bytes(MemoryKind::parameters) - values);
    EXPECT_EQ(measured(offloaded, MemoryKind::gradients), bytes(MemoryKind::gradients) - gradients);
    EXPECT_EQ(measured(offloaded, MemoryKind::optimizer), 0);
    EXPECT_EQ(on_device.steps.back().loss, offloaded.steps.back().loss);
  }
}

TEST(Offload, OfMixedPrecisionAndAccumulation) {
  Job job = odd_llama();
  job.options.micro_batches = 3;
  for (const bool each : {false, true}) {
    expect_identical(job, {.reduce_each_micro_batch = each, .param_dtype = Dtype::bf16, .offload = Offload::pageable});
  }
}

// ---- gathering in 8 bits ------------------------------------------------------------------------------------------

// e4m3 keeps 3 bits behind the first: an error of at most 1/16, of 1/38 on average.
TEST(GatherF8, IsTheSerialModelWithTheSameRounding) {
  for (const auto& [dtype, param_dtype] :
       {std::pair(Dtype::f32, std::optional<Dtype>()), {Dtype::f32, Dtype::bf16}, {Dtype::bf16, std::nullopt}}) {
    for (const int64_t prefetch : {0, 2}) {
      Job job = odd_llama();
      job.options.dtype = dtype;
      const ShardingPolicy policy{.prefetch = prefetch, .param_dtype = param_dtype, .gather_dtype = Dtype::f8_e4m3};
      const RunRecord record = expect_identical(job, policy).record;
      ASSERT_TRUE(record.gather_error.has_value());
      EXPECT_GT(*record.gather_error, 0.02);
      EXPECT_LT(*record.gather_error, 0.04);
    }
  }
}

TEST(GatherF8, SendsAByteAnElement) {
  Job job = odd_llama("ours");
  const RunRecord f32 = train_with(job, {}).record, f8 = train_with(job, {.gather_dtype = Dtype::f8_e4m3}).record;
  EXPECT_TRUE(f8.check.passed);
  expect_balanced_books(f8);
  EXPECT_EQ(sent(f32, Operation::all_gather), 4 * sent(f8, Operation::all_gather));
  if (job_size() == 1) return;
  EXPECT_EQ(f8.traffic.at("dp_shard").at(Operation::all_reduce).calls, job.options.steps + 1);
}

TEST(GatherF8, OfOffloadedShardsBetweenEvaluations) {
  Job job = odd_llama();
  if (job_size() == 4) job.mesh = {{"dp_replicate", 2}, {"dp_shard", 2}};
  job.options.micro_batches = 3;
  job.options.eval_every = 1;
  job.options.eval_batches = 1;
  expect_identical(job, {.offload = Offload::pinned, .gather_dtype = Dtype::f8_e4m3});
}

// One rank's NaN must not hide behind the other ranks' numbers.
TEST(GatherF8, ValuesThatAreNotFiniteAreRefusedOnAllRanks) {
  for (const float bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto spoil = [bad](Model& model, const Mesh& mesh, Parallelism& parallelism) {
      parallelism.after_update = [&, bad, inner = parallelism.after_update] {
        const Tensor value = parameters_of(model).back()->owned.value;
        if (mesh["dp_shard"].rank() == mesh["dp_shard"].size() - 1) value.data<float>()[value.size() - 1] = bad;
        inner();
      };
    };
    Job job = odd_llama();
    job.options.check = false;
    EXPECT_THROW(train_with(job, {.gather_dtype = Dtype::f8_e4m3}, spoil), UserError);
  }
}

}  // namespace
}  // namespace ninefold
