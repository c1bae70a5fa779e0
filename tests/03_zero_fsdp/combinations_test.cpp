// Stages, policies, accumulation, replicas, units and recomputation together: every pair of choices is in a run that is
// the serial model to the bit, with clipping, and sends and holds what is worked out here once more, from the shapes
// alone.
#include "03_zero_fsdp/checkpoint_activations.h"
#include "03_zero_fsdp/divide.h"
#include "tests/support/training.h"

namespace ninefold {
namespace {

// The number of a choice for each of the things that can be chosen.
enum Factor { stage, reshard, prefetch, accumulation, replicas, recompute, wrap, offload, factors };
using Choice = std::array<int, factors>;

constexpr Choice choices = {4, 3, 3, 3, 2, 4, 3, 2};
constexpr Reshard reshards[] = {Reshard::standard, Reshard::always, Reshard::never};
constexpr const char* wraps[] = {"layers.*", "tok_embeddings,layers.*,norm,output", "size:1000000"};
constexpr const char* recomputations[] = {"none", "full", "every:2", "selective"};

int64_t micro_batches_of(const Choice& choice) { return choice[accumulation] > 0 ? 4 : 1; }
bool reduces_each(const Choice& choice) { return choice[accumulation] == 2; }

bool is_possible(const Choice& choice, int ranks) {
  return (choice[stage] >= 2 || !reduces_each(choice)) && (choice[replicas] == 0 || ranks % 2 == 0) &&
         (choice[stage] >= 1 || choice[offload] == 0);
}

std::vector<Choice> possible_choices(int ranks) {
  std::vector<Choice> all = {Choice{}};
  for (int factor = 0; factor < factors; ++factor) {
    std::vector<Choice> longer;
    for (Choice choice : all) {
      for (choice[factor] = 0; choice[factor] < choices[factor]; ++choice[factor]) longer.push_back(choice);
    }
    all = longer;
  }
  std::erase_if(all, [&](const Choice& choice) { return !is_possible(choice, ranks); });
  return all;
}

// Factor and choice, twice.
using Pair = std::array<int, 4>;

std::set<Pair> pairs_of(const Choice& choice) {
  std::set<Pair> pairs;
  for (int a = 0; a < factors; ++a) {
    for (int b = a + 1; b < factors; ++b) pairs.insert({a, choice[a], b, choice[b]});
  }
  return pairs;
}

// So few of them that every possible pair is in one: always the one with most that are missing.
std::vector<Choice> pairwise(int ranks) {
  const std::vector<Choice> all = possible_choices(ranks);
  std::set<Pair> missing;
  for (const Choice& choice : all) missing.merge(pairs_of(choice));
  std::vector<Choice> chosen;
  while (!missing.empty()) {
    const auto news = [&](const Choice& choice) {
      const auto pairs = pairs_of(choice);
      return std::count_if(pairs.begin(), pairs.end(), [&](const Pair& pair) { return missing.contains(pair); });
    };
    chosen.push_back(
        *std::max_element(all.begin(), all.end(), [&](const Choice& a, const Choice& b) { return news(a) < news(b); }));
    for (const Pair& pair : pairs_of(chosen.back())) missing.erase(pair);
  }
  return chosen;
}

ShardingPolicy policy_of(const Choice& choice) {
  return {.stage = choice[stage],
          .wrap = wraps[choice[wrap]],
          .reshard = reshards[choice[reshard]],
          .prefetch = choice[prefetch],
          .reduce_each_micro_batch = reduces_each(choice),
          .offload = choice[offload] == 1 ? Offload::pinned : Offload::none};
}

// No size of a parameter divides by the ranks.
Job job_of(const Choice& choice) {
  Job job = small_llama("ordered");
  job.mesh = {{"dp_replicate", choice[replicas] + 1}, {"dp_shard", 0}};
  job.options.llama = {.dim = 36, .layers = 2, .heads = 2, .kv_heads = 1, .ffn = 50, .vocab = 257};
  job.options.length = 8;
  job.options.steps = 2;
  job.options.batch = 96;
  job.options.micro_batches = micro_batches_of(choice);
  RecomputationOptions recomputation;
  recomputation.recompute = recomputations[choice[recompute]];
  job.options.recomputation = recomputation.resolve();
  return job;
}

// What the units are, said without the code that makes them.
struct Sizes {
  std::string name;
  int64_t elements = 0;  // each parameter filled up to 64
};

std::vector<Sizes> units_of(const Choice& choice, const TrainOptions& options) {
  std::vector<Sizes> units = {{"root", 0}};
  const auto model = make_llama(options.llama);
  for (const Parameter* parameter : parameters_of(*model)) {
    const size_t end = parameter->name.starts_with("layers.") ? 8 : parameter->name.find('.');
    const std::string child = parameter->name.substr(0, end);
    const bool in_root = choice[wrap] == 2 || (choice[wrap] == 0 && !child.starts_with("layers."));
    if (!in_root && units.back().name != child) units.push_back({child, 0});
    (in_root ? units.front() : units.back()).elements += (parameter->size() + 63) / 64 * 64;
  }
  if (units.front().elements == 0) units.erase(units.begin());
  return units;
}

// Ψ of the books: elements of all units, each filled up so that it divides by the ranks.
int64_t padded_elements(const std::vector<Sizes>& units, int64_t ranks) {
  int64_t sum = 0;
  for (const Sizes& unit : units) sum += (unit.elements + 64 * ranks - 1) / (64 * ranks) * (64 * ranks);
  return sum;
}

// How often a unit is gathered in a step.
int64_t gathers(const Choice& choice, const Sizes& unit, bool is_last) {
  if (choice[stage] < 3) return 1;
  const Reshard policy = reshards[choice[reshard]];
  const bool stays = unit.name == "root" || policy == Reshard::never || (policy == Reshard::standard && is_last);
  return micro_batches_of(choice) * (stays ? 1 : 2);
}

void expect_the_traffic(const Choice& choice, const Job& job, const RunRecord& record) {
  const int64_t copies = choice[replicas] + 1, ranks = job_size() / copies, steps = job.options.steps;
  const std::vector<Sizes> units = units_of(choice, job.options);
  std::map<std::string, std::map<Operation, int64_t>> expected;
  for (size_t i = 0; i < units.size(); ++i) {
    const int64_t padded = padded_elements({units[i]}, ranks), sent = (ranks - 1) * padded / ranks * 4;
    expected["dp_shard"][Operation::all_gather] += steps * gathers(choice, units[i], i + 1 == units.size()) * sent;
    expected["dp_shard"][Operation::reduce_scatter] += steps * (reduces_each(choice) ? 4 : 1) * sent;
    expected["dp_replicate"][Operation::all_reduce] += steps * 2 * (copies - 1) * padded / ranks / copies * 4;
  }
  for (const auto& [dimension, operations] : expected) {
    for (const auto& [operation, bytes] : operations) {
      const auto found = record.traffic.find(dimension);
      const bool is_booked = found != record.traffic.end() && found->second.contains(operation);
      EXPECT_EQ(is_booked ? found->second.at(operation).bytes : 0, bytes) << dimension << " " << name_of(operation);
    }
  }
}

void expect_the_memory(const Choice& choice, const Job& job, const RunRecord& record) {
  const int64_t ranks = job_size() / (choice[replicas] + 1);
  const int64_t whole = 4 * padded_elements(units_of(choice, job.options), ranks), shard = whole / ranks;
  const int64_t shard_on_device = choice[offload] == 1 ? 0 : shard;
  for (const MemoryRecord& entry : record.memory) {
    if (entry.kind == MemoryKind::parameters) {
      EXPECT_EQ(entry.measured_peak, choice[stage] == 3 ? shard_on_device : whole);
    }
    if (entry.kind == MemoryKind::gradients) {
      EXPECT_EQ(entry.measured_peak, choice[stage] >= 2 ? shard_on_device : whole);
    }
    // Two states; the shard's padding has none.
    if (entry.kind == MemoryKind::optimizer) {
      EXPECT_LE(entry.measured_peak, 2 * shard_on_device);
    }
  }
}

void expect_the_serial_model(const Choice& choice, const std::shared_ptr<const Task>& task) {
  Job job = job_of(choice);
  job.task = task;
  const Outcome outcome = train(job, [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
    checkpoint_activations(model, "layers.*", options.recomputation);
    return divide(model, mesh, policy_of(choice), options);
  });
  const RunRecord& record = outcome.record;
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(record.numerics, Numerics::bit_identical);
  EXPECT_EQ(record.check.steps, job.options.steps);
  EXPECT_EQ(record.check.gradient_max_rel, 0);
  EXPECT_EQ(record.check.parameter_max_rel, 0);
  for (const StepRecord& step : record.steps) EXPECT_GT(step.gradient_norm, job.options.clip) << "nothing is clipped";
  expect_balanced_books(record);
  if (choice[stage] == 0) return;  // its memory and traffic are chapter 02's
  expect_the_traffic(choice, job, record);
  expect_the_memory(choice, job, record);
}

TEST(Combinations, AreTheSerialModelToTheBitAndKeepTheBooks) {
  const auto task = task_of(job_of({}));
  for (const Choice& choice : pairwise(job_size())) {
    SCOPED_TRACE(
        fmt::format("stage {}, reshard {}, prefetch {}, accumulation {}, replicas {}, recompute {}, wrap {}, "
                    "offload {}",
                    choice[stage], choice[reshard], choice[prefetch], choice[accumulation], choice[replicas],
                    recomputations[choice[recompute]], wraps[choice[wrap]], choice[offload]));
    expect_the_serial_model(choice, task);
  }
}

// The last matmul of a feed-forward adds to what the block has so far, and rounds once. In another pass it would twice.
TEST(UnitsInsideBlocks, AddWhereTheSerialModelDoes) {
  for (const int64_t stage : {1, 3}) {
    for (const char* wrap : {"layers.*.feed_forward", "layers.*.feed_forward.w2", "layers.*.feed_forward.*"}) {
      SCOPED_TRACE(fmt::format("stage {}, {}", stage, wrap));
      Job job = small_llama("ordered");
      job.mesh = {{"dp_replicate", 1}, {"dp_shard", 0}};
      job.options.dtype = Dtype::bf16;
      job.options.batch = 48;
      job.options.steps = 1;
      const Outcome outcome = train(job, [&](Model& model, const Mesh& mesh, const TrainOptions& options) {
        ShardingPolicy policy{.stage = stage, .wrap = wrap};
        policy.types = {Dtype::bf16, Dtype::bf16, Dtype::f32, Dtype::f32, Dtype::bf16};
        return divide(model, mesh, policy, options);
      });
      EXPECT_EQ(outcome.exit_code, 0);
      EXPECT_EQ(outcome.record.check.gradient_max_rel, 0);
    }
  }
}

}  // namespace
}  // namespace ninefold
