// Continues a text with a Llama from a checkpoint, or from any folder of transformers, on one rank or with each layer
// divided over several.
//
// ./run 09/generate -- --init-from runs/llama --prompt "In the beginning"
#include <fmt/ranges.h>

#include <filesystem>
#include <sstream>

#include "01_collectives/collectives.h"
#include "05_tensor_parallel/parallelize.h"
#include "05_tensor_parallel/predict.h"
#include "common/base/stopwatch.h"
#include "common/comm/control.h"
#include "common/train/checkpoint_folder.h"
#include "common/train/generate.h"
#include "common/train/model_tensors.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  std::string init_from, prompt = "In the beginning", collectives = "ours";
  int64_t tokens = 200, tp = Options::automatic;
  uint64_t seed = 1;
  Sampling sampling{.temperature = 0.8, .top_k = 0};
  std::optional<Dtype> dtype;
  int threads = 1;
  double timeout = 120;

  void declare(Options& options) {
    options.group("Text");
    options.add("--init-from", init_from, "folder of a checkpoint, of several (the newest counts), or of transformers");
    options.add("--prompt", prompt, "text to continue; for a vocabulary other than bytes, token numbers: \"17 4 99\"");
    options.add("--tokens", tokens, "so many are added", {.minimum = 0, .unit = "tokens"});
    options.add("--temperature", sampling.temperature,
                "by which scores are divided before a token is drawn; 0: always the likeliest", {.minimum = 0});
    options.add("--top-k", sampling.top_k, "draw from so many of the likeliest tokens; 0: from all", {.minimum = 0});
    options.add("--seed", seed, "of what is drawn");
    options.group("Run");
    options.add("--tp", tp, "ranks that share each layer; auto: all", {.minimum = 1, .may_be_auto = true});
    options.add_choice<std::optional<Dtype>>(
        "--dtype", dtype, {{"auto", std::nullopt}, {"f32", Dtype::f32}, {"bf16", Dtype::bf16}, {"f16", Dtype::f16}},
        "type of parameters and activations; auto: the folder's");
    options.add("--threads", threads, "of each rank", {.minimum = 1, .maximum = 1024});
    options.add_choice("--collectives", collectives, {"ours", "ordered", "mpi"}, "as in the training programs");
    options.add("--timeout", timeout, "longest wait for another rank", {.minimum = 0.1, .unit = "s"});
  }
};

constexpr int64_t bytes_vocabulary = 256;

std::vector<int32_t> tokens_of(const std::string& prompt, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  if (vocabulary == bytes_vocabulary) {
    for (const char byte : prompt) tokens.push_back(static_cast<unsigned char>(byte));
  } else {
    std::istringstream words(prompt);
    for (int64_t token = 0; words >> token;) {
      require(token >= 0 && token < vocabulary, "--prompt has the token {}, but the vocabulary is {}", token,
              vocabulary);
      tokens.push_back(static_cast<int32_t>(token));
    }
    require(words.eof(), "--prompt '{}' must be token numbers, because the vocabulary ({}) is not that of bytes (256)",
            prompt, vocabulary);
  }
  require(!tokens.empty(), "--prompt is empty; give at least one token");
  return tokens;
}

// Bytes as they are, but for those that would drive a terminal.
std::string text_of(int32_t token, int64_t vocabulary) {
  if (vocabulary != bytes_vocabulary) return fmt::format("{} ", token);
  const auto byte = static_cast<char>(token);
  const bool is_control = token == 127 || (token < 32 && byte != '\n' && byte != '\t');
  return {is_control ? '?' : byte};
}

// That of a tensor that the model needs.
Dtype dtype_of(const ModelFolder& folder, const std::string& path, Model& model) {
  const std::string name = transformers_name(parameters_of(model).front()->name);
  const auto found = folder.tensors().find(name);
  require(found != folder.tensors().end(), "{} has no tensor {}, which this model needs", path, name);
  const StoredTensor& tensor = found->second;
  require(tensor.dtype && is_float(*tensor.dtype), "{}: {} is of type {}, but this model needs F32, BF16 or F16", path,
          name, tensor.type);
  return *tensor.dtype;
}

std::unique_ptr<Model> load_model(const ModelFolder& folder, const std::string& path, const LlamaConfig& config,
                                  const Mesh& mesh, const ProgramOptions& options) {
  const Group& ranks = mesh["tp"];
  LlamaDivision{config, false, false, false, {}}.validate(ranks.size(), 1);
  std::unique_ptr<Model> model = make_llama(config);
  if (ranks.size() > 1) parallelize(*model, ranks, llama_plan(config, false, false));
  const Dtype dtype = options.dtype ? *options.dtype : dtype_of(folder, path, *model);
  materialize(*model, mesh.world().device(), {dtype, dtype, dtype, dtype}, options.seed);
  const std::vector<CarriedTensor> tensors = tensors_of_model(*model, ModelFormat());
  load_tensors(folder.tensors(), path, tensors, /*converts=*/true);
  if (ranks.rank() == 0) fmt::print(stderr, "{}", warning_of_extra_tensors(folder.tensors(), path, tensors));
  return model;
}

// All ranks continue with what rank 0 draws.
void generate(Generator& generator, const std::vector<int32_t>& prompt, int64_t vocabulary, const World& world,
              const ProgramOptions& options) {
  RandomStream random(hash_key(options.seed, "generate"));
  std::vector<int32_t> next = prompt;
  const auto print = [&] {
    if (world.rank() != 0) return;
    for (const int32_t token : next) fmt::print("{}", text_of(token, vocabulary));
    std::fflush(stdout);
  };
  print();
  for (int64_t i = 0; i < options.tokens; ++i) {
    const Tensor scores = generator.feed(next);
    next = control::broadcast<int32_t>(world.group(), {choose_token(scores, options.sampling, random)});
    print();
  }
}

int run(int argc, char** argv) {
  ProgramOptions options;
  Options command_line("09/generate", "Continues a text with a Llama from a checkpoint.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  require(!options.init_from.empty(), "--init-from is needed: name the folder of a checkpoint");
  const std::string path = model_folder(options.init_from);
  const ModelFolder folder(path);
  const LlamaConfig config = llama_config_in(folder.config(), path + "/config.json");
  const std::vector<int32_t> prompt = tokens_of(options.prompt, config.vocab);

  World world({.device = make_device(DeviceType::cpu, options.threads), .timeout = options.timeout},
              collectives::named(options.collectives));
  const Mesh mesh(world, {{"tp", mesh_size(options.tp)}});
  const auto model = load_model(folder, path, config, mesh, options);
  Generator generator(*model, config, world.device());
  const Stopwatch stopwatch;
  generate(generator, prompt, config.vocab, world, options);
  if (world.rank() == 0) {
    fmt::print("\n\n{} tokens from {}, {:.0f} tokens/s\n", options.tokens, path,
               static_cast<double>(options.tokens) / stopwatch.seconds());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
