#include "03_zero_fsdp/checkpoint_activations.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "common/base/text.h"
#include "common/base/trace.h"
#include "common/comm/world.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

// Transparent in names.
class CheckpointedLayer : public Layer {
 public:
  CheckpointedLayer(std::unique_ptr<Layer> inner, std::string path, const std::set<SavedOperation>& save)
      : inner_(std::move(inner)), path_(std::move(path)), save_(save) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    Tensor y;
    saved.checkpoint(x, save_, [&] { y = inner_->forward(x, saved); });
    return y;
  }
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override {
    saved.checkpoint(x, save_, [&] { inner_->forward_add(x, saved, sum); });
  }

  Tensor backward(const Tensor& dy, Saved& saved) override {
    recompute(saved);
    return inner_->backward(dy, saved);
  }
  void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) override {
    recompute(saved);
    inner_->backward_add(dy, saved, dx);
  }

  void visit(Visitor& visitor) override { visitor.member("", *inner_); }

 private:
  void recompute(Saved& saved) {
    saved.recompute([&](const Tensor& x) {
      const Span span(x.device()->trace, "recomputation", "{} forward again", path_);
      inner_->forward(x, saved);
    });
  }

  std::unique_ptr<Layer> inner_;
  std::string path_;
  std::set<SavedOperation> save_;
};

constexpr std::string_view every_prefix = "every:";
// What selective recomputation saves unless told otherwise: what costs arithmetic or messages.
constexpr std::string_view usual_save = "matmul,attention,reduce_scatter,max";

int64_t parse_every(const std::string& recompute) {
  int64_t every = 0;
  const char* const end = recompute.data() + recompute.size();
  const auto [rest, error] = std::from_chars(recompute.data() + every_prefix.size(), end, every);
  require(error == std::errc() && rest == end && every > 0,
          "--recompute {} needs a number of layers from 1, such as {}2", recompute, every_prefix);
  return every;
}

SavedOperation parse_operation(const std::string& name) {
  std::vector<std::string_view> known;
  for (const auto& [operation, word] : saved_operations) known.push_back(word);
  const auto found = std::find(known.begin(), known.end(), name);
  require(found != known.end(), "--save knows no operation {}; it takes {}", name, fmt::join(known, ", "));
  return saved_operations[found - known.begin()].first;
}

std::set<SavedOperation> parse_operations(const std::string& list) {
  std::set<SavedOperation> operations;
  for (const std::string_view name : split(list, ',')) operations.insert(parse_operation(std::string(name)));
  return operations;
}

}  // namespace

void checkpoint_activations(Model& model, const std::string& pattern, const Recomputation& recomputation) {
  if (recomputation.every == 0) return;
  int64_t layers = 0;
  for_each_match(model, pattern, [&](const std::string& path, std::unique_ptr<Layer>& slot) {
    if (!recomputation.applies_to(layers++)) return;
    slot = std::make_unique<CheckpointedLayer>(std::move(slot), path, recomputation.save);
  });
  if (layers == 0 && on_first_rank()) {
    fmt::print(stderr, "warning: {} matches no layer, so none runs its forward again; the layers are {}\n", pattern,
               fmt::join(slot_paths(model), ", "));
  }
  require(layers == 0 || recomputation.every <= layers,
          "every:{} chooses none of the {} layers that match {}; the number may be at most theirs", recomputation.every,
          layers, pattern);
}

void RecomputationOptions::declare(Options& options) {
  options.group("Activation checkpointing");
  options.add("--recompute", recompute,
              "layers that run their forward again in the backward: none, full (all of them), every:N (each N-th), or "
              "selective (all, but for the operations of --save)");
  options.add("--save", save,
              fmt::format("operations whose results selective recomputation keeps, separated by commas; default {}",
                          usual_save));
}

Recomputation RecomputationOptions::resolve() const {
  const bool selective = recompute == "selective";
  require(save.empty() || selective, "--save {} needs --recompute selective, not {}", save, recompute);
  if (recompute == "none") return {};
  if (recompute == "full") return {.every = 1, .save = {}};
  if (selective) return {.every = 1, .save = parse_operations(save.empty() ? std::string(usual_save) : save)};
  require(recompute.starts_with(every_prefix), "--recompute {} is none of none, full, selective, every:N", recompute);
  return {.every = parse_every(recompute), .save = {}};
}

}  // namespace ninefold
