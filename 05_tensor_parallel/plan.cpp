// Prints what a plan makes of a model: of each layer the style, the shape that a rank holds, and what it communicates.
// Nothing is computed, and one process is enough for any number of ranks.
//
// ./run 05/plan -- --model llama --tp 4
#include "05_tensor_parallel/predict.h"
#include "05_tensor_parallel/table.h"
#include "common/nn/classifiers.h"
#include "common/nn/embedding.h"
#include "common/nn/f8_linears.h"
#include "common/nn/loss.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  std::string model = "llama";
  int tp = 2;
  bool sequence_parallel = true, loss_parallel = true;
  F8Options f8;
  TrainOptions train;

  void declare(Options& options) {
    options.group("Plan");
    options.add_choice("--model", model, {"llama", "mlp", "image_embeddings"}, "whose plan to print");
    options.add("--tp", tp, "ranks that share each layer", {.minimum = 1});
    options.add("--sequence-parallel", sequence_parallel, "divide what lies between the layers by tokens");
    options.add("--loss-parallel", loss_parallel, "compute the loss without gathering the logits");
    f8.declare(options);
    train.declare_llama(options);
  }
};

struct Planned {
  std::unique_ptr<Model> model;
  Plan plan;
};

Planned plan_llama(const ProgramOptions& options, const std::string& f8_linears) {
  const LlamaConfig& config = options.train.llama;
  LlamaDivision{config, options.sequence_parallel, options.loss_parallel, false, {}}.validate(options.tp,
                                                                                              options.train.length);
  Planned planned{make_llama(config), llama_plan(config, options.sequence_parallel, options.loss_parallel)};
  planned.plan.f8_linears = f8_linears;
  multiply_in_f8(*planned.model, f8_linears);
  return planned;
}

// Tables of a pixel's value, row, column and channel, to be added up; they are only planned here. The plan has a key
// for a fifth one, which does not exist.
Planned plan_image_embeddings() {
  auto model = std::make_unique<Model>(std::make_unique<CrossEntropyLoss>());
  Plan plan;
  for (const auto& [name, rows] : {std::pair{"value", 256}, {"row", 32}, {"column", 32}, {"channel", 3}}) {
    model->add(name, std::make_unique<Embedding>(rows, 64, ops::Distribution{}));
    plan.entries.push_back({name, row_parallel(Layout::replicate)});
  }
  model->name_parameters();
  plan.entries.push_back({"colour", row_parallel(Layout::replicate)});
  return {std::move(model), plan};
}

int run(int argc, char** argv) {
  ProgramOptions options;
  Options command_line("05/plan", "What a plan makes of a model: layers, styles, shapes, communication.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);

  const std::string f8_linears = options.f8.pattern(command_line, options.train.dtype);
  require(f8_linears.empty() || options.model == "llama", "--matmul-dtype f8 is for --model llama only; leave it out");
  const auto [model, plan] = options.model == "llama" ? plan_llama(options, f8_linears)
                             : options.model == "mlp"
                                 ? Planned{make_mlp({.in = 10, .hidden = 32, .classes = 5}), mlp_plan()}
                                 : plan_image_embeddings();
  const int ranks = options.tp;
  const auto [layers, warnings] = resolve(*model, plan, ranks, "tp");
  if (!on_first_rank()) return 0;
  for (const std::string& warning : warnings) fmt::print("warning: {}\n", warning);
  fmt::print("{} over tp({})\n{}", options.model, ranks, plan_table(layers, plan.loss_parallel, ranks));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
