// The combined trainer end to end, dimension beside dimension: it equals the serial model, keeps its books, and its
// check fails when it must.
#include "06_pipeline/generators/generators.h"
#include "tests/09_combined_3d/combined.h"

namespace ninefold {
namespace {

TEST(Train, TheMeshThatNobodyAskedFor) {
  const RunRecord record = expect_equal_to_serial("--steps 4");
  EXPECT_LT(record.steps.back().loss, record.steps.front().loss);
  const auto has = [&](const char* dimension) { return record.traffic.count(dimension) > 0; };
  EXPECT_EQ(has("pp"), job_size() % 8 == 0);
  EXPECT_EQ(has("tp"), job_size() % 4 == 0);
  EXPECT_EQ(has("dp_shard"), job_size() > 1);
}

// Data parallelism and pipelines keep the bits, where sums are in rank order; tensor parallelism cuts matmuls.
TEST(Train, ClaimsBitsWhereItKeepsThem) {
  if (job_size() < 4) return;  // two dimensions
  const int rest = job_size() / 2;
  for (const std::string pair :
       {"--pp 2 --dp-shard {}", "--pp 2 --dp-shard {} --stage 2", "--pp 2 --dp-shard {} --stage 1 --schedule zb-h1",
        "--pp 2 --dp-replicate {}", "--dp-replicate 2 --dp-shard {}"}) {
    const std::string sizes = fmt::format(fmt::runtime(pair), rest);
    const RunRecord record =
        expect_equal_to_serial(sizes + " --collectives ordered --mesh-order tp,cp,dp_shard,pp,dp_replicate");
    EXPECT_EQ(record.numerics, Numerics::bit_identical) << sizes;
    EXPECT_EQ(record.check.gradient_max_rel, 0) << sizes;
  }
  EXPECT_EQ(expect_equal_to_serial(fmt::format("--tp 2 --dp-shard {}", rest)).numerics, Numerics::bounded);
}

// Every schedule over stages whose layers are divided by tokens or whole, and whose states are divided or not.
TEST(Train, EveryScheduleInThreeDimensions) {
  if (job_size() != 8) return;
  const char* const forms[] = {"",
                               "--no-sequence-parallel --stage 1",
                               "--async-tp --stage 2",
                               "--no-loss-parallel --stage 0",
                               "--recompute full",
                               "--recompute selective --async-tp --stage 1",
                               "--reshard always"};
  size_t form = 0;
  for (const std::string& schedule : pipeline::generator_names()) {
    const RunRecord record = expect_equal_to_serial(fmt::format(
        "--pp 2 --dp-shard 2 --tp 2 --micro-batches 4 --schedule {} {}", schedule, forms[form++ % std::size(forms)]));
    EXPECT_EQ(record.executed_flops_per_step, record.predicted_flops_per_step) << schedule;
  }
}

// Experts divided over parts of the data's ranks, and of those that share sequences.
TEST(Train, DividesExperts) {
  if (job_size() != 8) return;
  for (const char* words :
       {"--dp-shard 8 --ep 4", "--dp-replicate 2 --dp-shard 4 --ep 2 --stage 0 --recompute full",
        "--pp 2 --dp-shard 4 --ep 4 --schedule 1f1b --micro-batches 4 --stage 1 --shared-experts 1",
        "--pp 2 --dp-shard 2 --cp 2 --ep 2 --schedule interleaved --micro-batches 4 --capacity-factor 1",
        "--pp 2 --dp-replicate 2 --cp 2 --ep 2 --schedule zb-h1 --capacity-factor 1 --token-drop-policy probs",
        "--pp 2 --dp-shard 4 --ep 2 --schedule dualpipe --micro-batches 4 --balance bias --router sigmoid",
        "--dp-shard 2 --cp 4 --ep 8 --layout striped --balance-scope batch --recompute selective",
        "--dp-shard 2 --cp 4 --layout gathered --capacity-factor 0.75 --steps 2",
        "--pp 4 --cp 2 --layout ulysses --schedule gpipe --micro-batches 2 --recompute every:2 --capacity-factor 1"}) {
    expect_equal_to_serial(fmt::format("--layers 4 {} --experts 8 --ffn 16", words));
  }
}

// Heads that tp has divided, stages that hand on their part of sequences, states divided over all of it.
TEST(Train, SharesSequencesInEveryLayout) {
  if (job_size() != 8) return;
  for (const char* words :
       {"--cp 2 --tp 2 --pp 2 --layout zigzag --schedule zb-v --micro-batches 4",
        "--cp 2 --tp 2 --pp 2 --layout contiguous --schedule dualpipe --micro-batches 4 --stage 3",
        "--cp 2 --tp 2 --dp-shard 2 --layout striped --async-tp --recompute selective",
        "--cp 2 --tp 4 --layout ulysses --kv-heads 8 --no-sequence-parallel --ffn 16 --recompute full",
        "--cp 4 --pp 2 --layout gathered --schedule zb-h1 --micro-batches 4 --ffn 16",
        "--cp 4 --pp 2 --layout hybrid --stage 1 --recompute full --eval-every 1 --eval-batches 1",
        "--cp 4 --dp-replicate 2 --layout zigzag --ffn 16 --stage 3",
        "--cp 8 --layout contiguous --recompute full --length 64 --kv-heads 8 --ffn 16 --micro-batch 1 --batch 2"}) {
    const RunRecord record = expect_equal_to_serial(words);
    EXPECT_EQ(record.executed_flops_per_step, record.predicted_flops_per_step) << words;
  }
}

TEST(Train, InNarrowTypes) {
  if (job_size() != 8) return;
  for (const char* types : {"--dtype bf16 --stage 1", "--dtype bf16 --grad-dtype bf16 --schedule zb-h1",
                            "--param-dtype bf16 --offload pinned"}) {
    expect_equal_to_serial(fmt::format("--pp 2 --dp-shard 2 --tp 2 --dim 64 --layers 3 --steps 2 {}", types));
  }
}

// Over tensor parallelism, over shards of states, over both, and with neither.
TEST(Train, MultipliesIn8Bits) {
  if (job_size() != 2 && job_size() != 8) return;
  std::vector<std::string> meshes = {fmt::format("--tp {}", job_size()), fmt::format("--dp-shard {}", job_size()),
                                     fmt::format("--dp-replicate {} --dp-shard 1", job_size())};
  if (job_size() == 8) {
    meshes = {"--tp 2 --dp-shard 4", "--tp 4 --dp-shard 2 --stage 1 --recompute full",
              "--tp 2 --dp-shard 2 --dp-replicate 2 --gather-dtype f8",
              "--tp 2 --dp-shard 4 --f8-layers layers.*.feed_forward --no-sequence-parallel"};
  }
  for (const std::string& mesh : meshes) {
    const RunRecord record = expect_equal_to_serial(mesh + " --matmul-dtype f8");
    EXPECT_GT(record.check.f8_gradient_rel, 1e-5) << mesh;
  }
}

// What the files of configs/ ask for, on a smaller model and batch.
TEST(Train, TheMeshesOfThePresets) {
  if (job_size() != 8) return;
  for (const char* preset : {"3d", "fsdp_tp", "hsdp", "dolma_7b", "deepseek", "yi", "gemma2", "pp_cp", "moe",
                             "yi_lightning", "llama3_405b_1", "llama3_405b_2", "llama3_405b_3", "4d"}) {
    const RunRecord record =
        expect_equal_to_serial(fmt::format("--dim 64 --layers 4 --ffn 96 {} --config {}/../configs/{}.ini",
                                           preset == std::string("4d") ? "--dp-shard 1" : "", NINEFOLD_DATA, preset));
    EXPECT_FALSE(record.traffic.empty()) << preset;
  }
}

// What stages hand on under sequence parallelism is a block of rows, in an evaluation too.
TEST(Train, EvaluatesTheSameWhateverTheMesh) {
  if (job_size() != 8) return;
  std::vector<double> losses;
  for (const char* mesh :
       {"--dp-shard 8", "--pp 2 --dp-shard 2 --tp 2", "--pp 4 --tp 2 --no-loss-parallel", "--tp 8"}) {
    const RunRecord record = expect_equal_to_serial(fmt::format("{} --eval-every 1 --eval-batches 1", mesh));
    losses.push_back(record.evaluations.at(0).loss);
    EXPECT_NEAR(losses.back(), losses.front(), 1e-6 * losses.front()) << mesh;
  }
}

TEST(Train, TheSameCommandGivesTheSameBits) {
  const RunRecord first = expect_equal_to_serial("--steps 3"), second = expect_equal_to_serial("--steps 3");
  for (size_t i = 0; i < first.steps.size(); ++i) {
    EXPECT_EQ(first.steps[i].loss, second.steps[i].loss);
    EXPECT_EQ(first.steps[i].gradient_norm, second.steps[i].gradient_norm);
  }
}

TEST(Train, ALossThatIsNotFiniteSaysStepAndRank) {
  try {
    train_combined("--dp-shard 1 --dp-replicate " + std::to_string(job_size()) +
                   " --steps 4 --no-check --clip 0 --lr 1e30");
    FAIL() << "the loss should have overflowed";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("the loss of step"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(fmt::format("on rank {}", job_rank())), std::string::npos);
  }
}

// In every dimension at once.
TEST(Check, FailsUnderEveryWrongCollective) {
  if (job_size() != 8) return;
  for (const CollectiveFault fault : all_reduce_faults) {
    const Outcome outcome = train_combined("--pp 2 --dp-shard 2 --tp 2 --no-sequence-parallel", fault);
    EXPECT_EQ(outcome.exit_code, 1) << "fault " << static_cast<int>(fault);
    EXPECT_FALSE(outcome.record.check.passed) << "fault " << static_cast<int>(fault);
  }
  EXPECT_TRUE(train_combined("", CollectiveFault::reorder_sums).record.check.passed);
}

// What does not go together says why, and what would.
TEST(Combinations, ThatCannotWorkSayWhatWould) {
  if (job_size() != 8) return;
  for (const auto& [words, sentence] : std::vector<std::pair<std::string, std::string>>{
           {"--pp 16", "pp(16) x dp_shard(auto) needs a multiple of 16 ranks, but the job has 8"},
           {"--pp 2 --dp-shard 3 --tp 2", "pp(2) x dp_shard(3) x tp(2) = 12 ranks, but the job has 8"},
           {"--ep 2 --dp-shard 8", "ep (2) ranks divide experts, but there are none; add --experts 8"},
           {"--dp-shard 8 --top-k 2", "--top-k is for experts, but there are none; add --experts 8"},
           {"--dp-shard 8 --ep 4 --experts 6", "experts (6) must be divisible by ep (4); try --experts 8"},
           {"--dp-shard 2 --cp 2 --pp 2 --ep 8 --experts 8", "ep (8) must divide dp_shard(2) x cp(2) = 4 ranks"},
           {"--dp-shard 8 --experts 4 --matmul-dtype f8", "--matmul-dtype f8 is not for --experts (4)"},
           {"--cp 4 --length 20", "length (20) must be divisible by 2 x cp = 8 for the layout zigzag over cp (4)"},
           {"--cp 8 --length 20 --layout ulysses", "length (20) must be divisible by 8"},
           {"--cp 4 --tp 2 --layout ulysses", "but there are 1 on each of tp (2) ranks"},
           {"--cp 2 --tp 4 --length 12", "length (12) must be divisible by cp (2) x tp (4)"},
           {"--cp 3", "cp(3) needs a multiple of 3 ranks, but the job has 8"},
           {"--cp 4 --layout hybrid --ulysses 3", "--ulysses (3) must divide --cp (4)"},
           {"--dp-shard 8 --layout ulysses", "--layout is for sequences that ranks share, but --cp is 1; add --cp 2"},
           {"--cp 2 --matmul-dtype f8", "--matmul-dtype f8 is not for context parallelism (cp 2)"},
           {"--pp 2 --cp 4 --tied-embeddings --stage 1", "--tied-embeddings are in two stages"},
           {"--mesh-order pp,tp", "--mesh-order pp,tp must name each of pp, dp_replicate, dp_shard, cp and tp once"},
           {"--tp 8 --heads 4", "heads (4) must be divisible by tp (8)"},
           {"--tp 2 --output-dtype f32 --dtype bf16", "--output-dtype is not for tensor parallelism (tp 2)"},
           {"--tp 2 --length 15", "length (15) must be divisible by tp (2)"},
           {"--tp 2 --async-tp --no-sequence-parallel", "--async-tp overlaps what sequence parallelism sends"},
           {"--pp 2 --dp-shard 4 --tied-embeddings", "--tied-embeddings are in two stages"},
           {"--pp 4 --layers 3", "the model has 3 layers, too few for 4 stages"},
           {"--pp 2 --wrap size:100", "--wrap and --prefetch are not for a pipeline"},
           {"--pp 2 --prefetch 2", "--wrap and --prefetch are not for a pipeline"},
           {"--pp 2 --reduce-each-micro-batch", "--reduce-each-micro-batch is not for a pipeline"},
           {"--pp 2 --gather-dtype f8", "--gather-dtype f8 is not for a pipeline"},
           {"--pp 2 --matmul-dtype f8", "--matmul-dtype f8 is not for a pipeline (pp 2)"},
           {"--tp 2 --matmul-dtype f8 --async-tp", "--async-tp cuts products before a tensor is there whole"},
           {"--pp 2 --schedule interleaved --micro-batches 1 --dp-shard 4",
            "interleaved needs micro-batches (1) divisible"},
           {"--pp 2 --schedule dualpipe --micro-batches 1", "dualpipe needs even numbers"},
           {"--pp 2 --virtual-stages 3", "--virtual-stages is for interleaved"},
           {"--tp 2 --schedule zb-v", "--schedule is for a pipeline, but --pp is 1; add --pp 2"},
           {"--dp-replicate 8 --stage 1", "--stage 1 divides states over --dp-shard, but that is 1"},
           {"--pp 2 --stage 1 --param-dtype bf16", "--param-dtype bf16 needs --stage 3"},
           {"--dp-replicate 8 --offload pinned", "--offload needs --stage 1, 2 or 3"},
           {"--dp-shard 8 --batch 12", "batch (12) must be divisible by the data ranks (8)"},
           {"--recompute every:9", "every:9 chooses none of the 8 layers"}}) {
    SCOPED_TRACE(words);
    try {
      train_combined(words);
      ADD_FAILURE() << "it was taken";
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(sentence), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ninefold
