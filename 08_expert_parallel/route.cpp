// Prints how a router of random weights would send a few tokens to experts: choices and gates, the rows of each expert,
// whom capacity leaves out, and the bytes that an all-to-all between ranks would carry. One process, without MPI.
//
// ./run 08/route -- --experts 4 --top-k 2 --capacity-factor 1 --ep 2
#include "08_expert_parallel/plan_text.h"
#include "common/nn/model.h"
#include "common/train/options.h"

namespace {

using namespace ninefold;

struct ProgramOptions {
  int64_t sequences = 2, ep = 2;
  TrainOptions train;

  ProgramOptions() {
    train.length = 6;
    train.llama.dim = 16;
    train.llama.moe.experts = 4;
  }
  void declare(Options& options) {
    options.group("Tokens");
    options.add("--sequences", sequences, "how many", {.minimum = 1, .maximum = 64});
    options.add("--length", train.length, "of each", {.minimum = 1, .maximum = 256, .unit = "tokens"});
    options.add("--dim", train.llama.dim, "width of a token", {.minimum = 1, .maximum = 4096});
    options.add("--seed", train.seed, "of tokens and weights");
    options.add("--ep", ep, "ranks that divide the tokens and the experts", {.minimum = 1});
    train.declare_moe(options);
  }
  void check() const {
    const MoeConfig& moe = train.llama.moe;
    require(moe.experts > 0, "there is nothing to route to: --experts must be at least 1");
    require(moe.experts % ep == 0, "experts ({}) must be divisible by ep ({})", moe.experts, ep);
    require(sequences % ep == 0, "sequences ({}) must be divisible by ep ({}): each rank has its own", sequences, ep);
  }
};

Routing route(const ProgramOptions& options) {
  const TrainOptions& train = options.train;
  const DeviceHandle device = make_device(DeviceType::cpu, 1);
  struct RouterLayer : Layer {
    explicit RouterLayer(TopKRouter own) : router(std::move(own)) {}
    Tensor forward(const Tensor& x, Saved& saved) override { return routing = router.forward(x, saved), x; }
    Tensor backward(const Tensor& dy, Saved&) override { return dy; }
    void visit(Visitor& visitor) override { router.visit(visitor); }
    TopKRouter router;
    Routing routing;
  };
  const ops::Distribution normal = {.kind = ops::Distribution::Kind::normal, .width = 0.5};
  RouterLayer layer(TopKRouter(train.llama.moe, train.llama.dim, 0, 1, normal));
  materialize(layer, device, {}, train.seed);
  const Tensor x = Tensor::empty(device, {options.sequences * train.length, train.llama.dim}, Dtype::f32);
  ops::fill_random_(x, {.kind = ops::Distribution::Kind::normal, .width = 1}, train.seed, 0);
  Step step;
  step.rows_per_sample = train.length;
  step.training = false;
  Saved saved(step);
  (void)layer.forward(x, saved);
  return layer.routing;
}

int run(int argc, char** argv) {
  ProgramOptions options;
  Options command_line("08/route", "How tokens find their experts.");
  options.declare(command_line);
  if (const auto help = command_line.parse(argc, argv)) return print_help(*help);
  options.train.settle_moe();
  options.check();

  const MoeConfig& moe = options.train.llama.moe;
  const int64_t length = options.train.length, row_bytes = options.train.llama.dim * size_of(Dtype::f32);
  const Routing routing = route(options);
  const DispatchPlan plan = make_dispatch_plan(routing);
  fmt::print("{} sequences of {} tokens, {} experts, each token visits {}; ", options.sequences, length, moe.experts,
             moe.top_k);
  if (moe.capacity_factor) {
    fmt::print("an expert takes {} tokens of a sequence\n\n", moe.capacity(length));
  } else {
    fmt::print("no token is dropped\n\n");
  }
  fmt::print("{}\n{}\n", choices_text(routing, plan, length), rows_text(plan));
  fmt::print(
      "imbalance (max/mean of choices) {:.3f}\n\n",
      imbalance_of(count_choices(routing.chosen.data(), routing.chosen.data() + routing.chosen.size(), moe.experts)));
  fmt::print("bytes of the dispatch over {} ranks, rows of {} bytes, in brackets what stays:\n{}", options.ep,
             row_bytes, dispatch_text(dispatch_bytes(routing, plan, options.ep, row_bytes)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return ninefold::launch(argc, argv, run); }
