#include "09_combined_3d/comparison/techniques.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <sstream>

#include "06_pipeline/generators/generators.h"
#include "common/base/check.h"
#include "common/base/text.h"

namespace ninefold::comparison {
namespace {

constexpr int rest = 0;  // the ranks that the other dimensions leave over, two at least

constexpr const char* ddp = "02_ddp/train";
constexpr const char* moe = "08_expert_parallel/train";
constexpr const char* combined = "09_combined_3d/train";

enum class Model { dense, experts };
enum class Scaling { no, yes };

struct Pattern {
  const char* name;
  const char* program;
  std::vector<MeshDimension> mesh;
  const char* options = "";
  Scaling scaling = Scaling::no;
  Model model = Model::dense;
};

// The order is that of the chapters; a row appears where its sizes multiply to the ranks.
const std::vector<Pattern>& patterns() {
  static const std::vector<Pattern> all = {
      {"serial", combined, {}},
      {"DDP naive", ddp, {{"dp_replicate", rest}}, "--variant naive"},
      {"DDP flat", ddp, {{"dp_replicate", rest}}, "--variant flat"},
      {"DDP bucketed", ddp, {{"dp_replicate", rest}}, "--variant bucketed --bucket-mb 4"},
      {"DDP overlapped", ddp, {{"dp_replicate", rest}}, "--variant overlapped --bucket-mb 4", Scaling::yes},
      {"ZeRO-1", combined, {{"dp_shard", rest}}, "--stage 1"},
      {"ZeRO-2", combined, {{"dp_shard", rest}}, "--stage 2"},
      {"FSDP (ZeRO-3)", combined, {{"dp_shard", rest}}, "--stage 3", Scaling::yes},
      {"FSDP recomputing", combined, {{"dp_shard", rest}}, "--stage 3 --recompute full"},
      {"HSDP", combined, {{"dp_replicate", 2}, {"dp_shard", rest}}, "--stage 3"},
      {"TP", combined, {{"tp", rest}}, "--no-sequence-parallel"},
      {"TP + SP", combined, {{"tp", rest}}, "", Scaling::yes},
      {"TP + SP async", combined, {{"tp", rest}}, "--async-tp"},
      {"PP GPipe", combined, {{"pp", rest}}, "--schedule gpipe"},
      {"PP 1F1B", combined, {{"pp", rest}}, "--schedule 1f1b", Scaling::yes},
      {"PP interleaved", combined, {{"pp", rest}}, "--schedule interleaved"},
      {"PP ZB-H1", combined, {{"pp", rest}}, "--schedule zb-h1"},
      {"PP ZB-H2", combined, {{"pp", rest}}, "--schedule zb-h2"},
      {"PP ZB-V", combined, {{"pp", rest}}, "--schedule zb-v"},
      {"PP DualPipe", combined, {{"pp", rest}}, "--schedule dualpipe"},
      {"CP ring", combined, {{"cp", rest}}, "--layout contiguous"},
      {"CP ring striped", combined, {{"cp", rest}}, "--layout striped"},
      {"CP ring zigzag", combined, {{"cp", rest}}, "--layout zigzag", Scaling::yes},
      {"CP gathered keys", combined, {{"cp", rest}}, "--layout gathered"},
      {"CP Ulysses", combined, {{"cp", rest}}, "--layout ulysses"},
      {"FSDP x TP", combined, {{"dp_shard", rest}, {"tp", 2}}, "", Scaling::yes},
      {"FSDP x CP", combined, {{"dp_shard", rest}, {"cp", 2}}, "--layout zigzag"},
      {"PP x FSDP", combined, {{"pp", 2}, {"dp_shard", rest}}, "--schedule 1f1b"},
      {"PP x ZeRO-1", combined, {{"pp", 2}, {"dp_shard", rest}}, "--schedule 1f1b --stage 1"},
      {"PP x CP", combined, {{"pp", 2}, {"cp", rest}}, "--schedule 1f1b --layout zigzag"},
      {"PP x TP", combined, {{"pp", rest}, {"tp", 2}}, "--schedule 1f1b"},
      {"CP x TP", combined, {{"cp", rest}, {"tp", 2}}, "--layout zigzag"},
      {"HSDP x TP", combined, {{"dp_replicate", 2}, {"dp_shard", rest}, {"tp", 2}}},
      {"HSDP x CP", combined, {{"dp_replicate", 2}, {"dp_shard", rest}, {"cp", 2}}, "--layout zigzag"},
      {"PP x FSDP x TP", combined, {{"pp", 2}, {"dp_shard", rest}, {"tp", 2}}, "--schedule 1f1b", Scaling::yes},
      {"PP x ZeRO-1 x TP", combined, {{"pp", 2}, {"dp_shard", rest}, {"tp", 2}}, "--schedule 1f1b --stage 1"},
      {"PP x HSDP x TP", combined, {{"pp", 2}, {"dp_replicate", 2}, {"dp_shard", rest}, {"tp", 2}}, "--schedule 1f1b"},
      {"PP x FSDP x CP x TP",
       combined,
       {{"pp", 2}, {"dp_shard", rest}, {"cp", 2}, {"tp", 2}},
       "--schedule 1f1b --layout zigzag"},
      {"MoE serial", moe, {}, "", Scaling::no, Model::experts},
      {"MoE FSDP", moe, {{"dp_shard", rest}}, "--stage 3", Scaling::no, Model::experts},
      {"MoE EP", moe, {{"ep", rest}}, "", Scaling::no, Model::experts},
      {"MoE FSDP x EP", moe, {{"dp_shard", 2}, {"ep", rest}}, "--stage 3", Scaling::no, Model::experts},
      {"MoE PP x EP", combined, {{"pp", 2}, {"dp_shard", rest}}, "--schedule 1f1b --ep 2", Scaling::no, Model::experts},
  };
  return all;
}

// The mesh with its sizes, if they multiply to the ranks.
std::optional<std::vector<MeshDimension>> mesh_on(int ranks, std::vector<MeshDimension> mesh) {
  int fixed = 1;
  for (const MeshDimension& dimension : mesh) fixed *= dimension.size == rest ? 1 : dimension.size;
  for (MeshDimension& dimension : mesh) {
    if (dimension.size != rest) continue;
    dimension.size = ranks / fixed;
    if (dimension.size < 2) return std::nullopt;
    fixed *= dimension.size;
  }
  if (fixed != ranks) return std::nullopt;
  return mesh;
}

// The word after this option; empty without it.
std::string option_in(const std::string& options, std::string_view name) {
  std::istringstream words(options);
  for (std::string word, value; words >> word;) {
    if (word == name && words >> value) return value;
  }
  return "";
}

// As many as the trainer would take: a small bubble, and each no smaller than a sequence.
int micro_batches_of(const Technique& technique, const Workload& work) {
  int64_t count = 8;
  const int64_t local = work.batch / (technique.size("dp_replicate") * technique.size("dp_shard"));
  while (local % count != 0) --count;
  return static_cast<int>(count);
}

void require_pipeline(const Technique& technique, const Workload& work) {
  const int pp = technique.size("pp");
  if (pp == 1) return;
  const auto& generator = pipeline::find_generator(option_in(technique.options, "--schedule"));
  const pipeline::PipelineSize size{.ranks = pp, .micro_batches = micro_batches_of(technique, work)};
  const int stages = pp * generator.chunks(size);
  require(stages <= work.layers, "layers ({}) must be at least the stages ({})", work.layers, stages);
  generator.make(size);
}

void require_divides(std::string_view what, int64_t size, std::string_view by, int64_t ranks) {
  require(size % ranks == 0, "{} ({}) must be divisible by {} ({})", what, size, by, ranks);
}

// Throws UserError where a size of the model excludes the technique. The trainers have the same rules and more; these
// are the ones that the usual sizes meet.
void require_fits(const Technique& technique, const Workload& work) {
  const int tp = technique.size("tp"), cp = technique.size("cp"), ep = technique.size("ep");
  require_divides("batch", work.batch, "the data ranks",
                  technique.size("dp_replicate") * technique.size("dp_shard") * ep);
  require(tp <= 8, "tp ({}) is for the ranks of one node, 8 at most", tp);
  require_divides("kv-heads", work.kv_heads, "tp", tp);
  require_divides("ffn", work.ffn, "tp", tp);
  if (cp > 1) require_divides("length", work.length, "2 x cp", 2 * cp);
  require_divides("length", work.length, "cp x tp", cp * tp);
  if (option_in(technique.options, "--layout") == "ulysses") require_divides("kv-heads", work.kv_heads, "cp", cp);
  require_divides("experts", experts, "ep", ep);
  const std::string within = option_in(technique.options, "--ep");  // of the combined trainer: within dp_shard
  if (!within.empty()) require_divides("dp_shard", technique.size("dp_shard"), "ep", std::stoi(within));
  require_pipeline(technique, work);
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& letter : result) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return result;
}

// Whether the row is the one of that name, or, where none has just this name, has the word in its own.
bool is_meant(const Technique& row, std::string_view word) {
  const std::string wanted = lower(trimmed(word)), name = lower(row.name);
  const bool is_name = std::any_of(patterns().begin(), patterns().end(),
                                   [&](const Pattern& pattern) { return lower(pattern.name) == wanted; });
  return is_name ? name == wanted : !wanted.empty() && name.find(wanted) != std::string::npos;
}

void add_option(std::vector<std::string>& arguments, std::string_view name, int64_t value) {
  arguments.push_back(fmt::format("--{}", name));
  arguments.push_back(fmt::format("{}", value));
}

}  // namespace

void Workload::declare(Options& options) {
  options.group("Model and batch, the same for all");
  options.add("--layers", layers, "transformer blocks", {.minimum = 1});
  options.add("--dim", dim, "model width", {.minimum = 1});
  options.add("--heads", heads, "query heads", {.minimum = 1});
  options.add("--kv-heads", kv_heads, "key and value heads", {.minimum = 1});
  options.add("--ffn", ffn, "feed-forward width; experts have half of it each", {.minimum = 2});
  options.add("--vocab", vocab, "vocabulary", {.minimum = 1, .unit = "tokens"});
  options.add("--length", length, "sequence length", {.minimum = 1, .unit = "tokens"});
  options.add("--batch", batch, "global batch", {.minimum = 1, .unit = "samples"});
  options.add_choice("--dtype", dtype, {"f32", "bf16", "f16"}, "type of parameters and activations");
  options.add("--data", data, "training data; the embedded text if left out");
  options.add("--seed", seed, "of initial values and order of the data", {.minimum = 0});
}

int Technique::ranks() const {
  return std::accumulate(mesh.begin(), mesh.end(), 1, [](int all, const auto& one) { return all * one.size; });
}

int Technique::size(std::string_view dimension) const {
  const auto found = std::find_if(mesh.begin(), mesh.end(), [&](const auto& one) { return one.name == dimension; });
  return found == mesh.end() ? 1 : found->size;
}

std::string mesh_text(const Technique& technique) {
  std::vector<std::string> parts;
  for (const auto& [name, size] : technique.mesh) parts.push_back(fmt::format("{}({})", name, size));
  return parts.empty() ? "one rank" : fmt::format("{}", fmt::join(parts, " x "));
}

TechniqueList techniques_on(int ranks, const Workload& work) {
  TechniqueList list;
  for (const Pattern& pattern : patterns()) {
    const auto mesh = mesh_on(pattern.mesh.empty() ? 1 : ranks, pattern.mesh);
    if (!mesh) continue;
    Technique technique{.name = pattern.name,
                        .program = pattern.program,
                        .mesh = *mesh,
                        .options = pattern.options,
                        .has_experts = pattern.model == Model::experts,
                        .scales = pattern.scaling == Scaling::yes};
    try {
      require_fits(technique, work);
      list.rows.push_back(std::move(technique));
    } catch (const UserError& error) {
      list.left_out.push_back({technique.name, error.what()});
    }
  }
  return list;
}

bool is_selected(const Technique& row, const std::string& only) {
  const auto words = split(only, ',');
  return only.empty() || std::any_of(words.begin(), words.end(), [&](auto word) { return is_meant(row, word); });
}

std::vector<Technique> select(const std::vector<Technique>& rows, const std::string& only) {
  std::vector<std::string_view> names;
  for (const Technique& row : rows) names.push_back(row.name);
  for (const std::string_view word : split(only, ',')) {
    const bool is_known = std::any_of(rows.begin(), rows.end(), [&](const auto& row) { return is_meant(row, word); });
    require(only.empty() || is_known, "--only {}: no technique that fits here has '{}' in its name: {}", only,
            trimmed(word), fmt::join(names, ", "));
  }
  std::vector<Technique> selected;
  for (const Technique& row : rows) {
    const auto needs_it = [&](const Technique& other) {
      return row.is_baseline() && other.has_experts == row.has_experts && is_selected(other, only);
    };
    if (is_selected(row, only) || std::any_of(rows.begin(), rows.end(), needs_it)) selected.push_back(row);
  }
  return selected;
}

std::vector<std::string> arguments_of(const Technique& technique, const Workload& work) {
  std::vector<std::string> arguments;
  for (const auto& [name, size] : technique.mesh) {
    std::string option = name;
    std::replace(option.begin(), option.end(), '_', '-');
    add_option(arguments, option, size);
  }
  std::istringstream options(technique.options);
  for (std::string word; options >> word;) arguments.push_back(word);
  if (technique.size("pp") > 1) add_option(arguments, "micro-batches", micro_batches_of(technique, work));
  if (technique.has_experts) {
    add_option(arguments, "experts", experts);
    add_option(arguments, "top-k", experts_of_a_token);
  }
  const int64_t ffn = technique.has_experts ? work.ffn / experts_of_a_token : work.ffn;
  const std::pair<std::string_view, int64_t> sizes[] = {
      {"layers", work.layers},     {"dim", work.dim},     {"heads", work.heads},
      {"kv-heads", work.kv_heads}, {"ffn", ffn},          {"vocab", work.vocab},
      {"length", work.length},     {"batch", work.batch}, {"seed", work.seed}};
  for (const auto& [name, value] : sizes) add_option(arguments, name, value);
  arguments.insert(arguments.end(), {"--dtype", work.dtype});
  if (!work.data.empty()) arguments.insert(arguments.end(), {"--data", work.data});
  return arguments;
}

}  // namespace ninefold::comparison
