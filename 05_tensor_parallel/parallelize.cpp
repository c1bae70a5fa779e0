#include "05_tensor_parallel/parallelize.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "05_tensor_parallel/embedding.h"
#include "05_tensor_parallel/linear.h"
#include "05_tensor_parallel/loss.h"
#include "05_tensor_parallel/whole_rows.h"
#include "common/comm/world.h"
#include "common/nn/f8_linears.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

using Kind = Style::Kind;

template <typename Derived>
std::unique_ptr<Derived> take(std::unique_ptr<Layer>& slot) {
  return std::unique_ptr<Derived>(static_cast<Derived*>(slot.release()));
}

// Puts the parallel form of a layer in its place, and says how its parameters lie.
class Divider {
 public:
  Divider(Model& model, const Group& group, bool in_pieces) : model_(model), group_(group), in_pieces_(in_pieces) {}

  void divide(const PlannedLayer& layer) {
    if (!layer.style || layer.style->kind == Kind::sequence_parallel) return;
    for_each_match(model_, layer.path, [&](const std::string&, std::unique_ptr<Layer>& slot) {
      switch (layer.style->kind) {
        case Kind::column_parallel:
          return column_parallel(layer, slot);
        case Kind::row_parallel:
          return row_parallel(layer, slot);
        case Kind::prepare_input_output:
          slot = std::make_unique<WholeRows>(std::move(slot), end(layer.input), end(layer.output));
          return;
        default:
          return prepare_input(layer, slot);
      }
    });
  }

 private:
  LayerEnd end(Conjugate conjugate, int64_t features = 0) const { return {conjugate, group_, features, in_pieces_}; }

  void shard(Parameter& parameter, const Cut& cut) const {
    parameter.placement.shards.push_back({group_.name(), cut.dim, group_.rank() / cut.copies, cut.count, cut.copies});
  }

  void column_parallel(const PlannedLayer& layer, std::unique_ptr<Layer>& slot) {
    auto linear = take<Linear>(slot);
    if (!linear->is_tied()) shard(linear->weight, *layer.cut);
    expect(linear->weight.placement.shards.back().count == layer.cut->count,
           "{} is tied to a table that is cut otherwise", layer.path);
    if (linear->bias) shard(*linear->bias, *layer.cut);
    auto parallel =
        std::make_unique<ColumnParallelLinear>(std::move(linear), end(layer.input), end(layer.output, layer.weight[0]));
    if (!layer.prepared_by.empty()) parallel->use(*prepared_);
    slot = std::move(parallel);
  }

  void row_parallel(const PlannedLayer& layer, std::unique_ptr<Layer>& slot) const {
    if (layer.type == PlannedLayer::Type::embedding) {
      auto embedding = take<Embedding>(slot);
      shard(embedding->weight, *layer.cut);
      slot = std::make_unique<VocabularyParallelEmbedding>(std::move(embedding), group_, end(layer.output));
      return;
    }
    auto linear = take<Linear>(slot);
    shard(linear->weight, *layer.cut);
    slot = std::make_unique<RowParallelLinear>(std::move(linear), end(layer.input, layer.weight[1]), end(layer.output));
  }

  void prepare_input(const PlannedLayer& layer, std::unique_ptr<Layer>& slot) {
    auto prepared = std::make_unique<PreparedInput>(std::move(slot), end(layer.input));
    prepared_ = prepared.get();
    slot = std::move(prepared);
  }

  Model& model_;
  Group group_;
  bool in_pieces_;
  PreparedInput* prepared_ = nullptr;  // of the layers that follow
};

// Neighbours that hold the same part of a weight: rank / copies tells which.
Group holders_of_same_part(const Group& group, int64_t copies) {
  const auto first = group.members().begin() + group.rank() / copies * copies;
  return group.world().make_group(group.name(), std::vector<int>(first, first + copies));
}

bool computes_on_rows(const std::vector<PlannedLayer>& layers, const std::string& parameter) {
  return std::any_of(layers.begin(), layers.end(), [&](const PlannedLayer& layer) {
    return layer.style && layer.style->kind == Kind::sequence_parallel && parameter.starts_with(layer.path + ".");
  });
}

int64_t copies_of(const Parameter& parameter) {
  const auto& shards = parameter.placement.shards;
  return shards.empty() ? 1 : shards.back().copies;
}

}  // namespace

std::unique_ptr<TensorParallel> parallelize(Model& model, const Group& group, const Plan& plan) {
  const ResolvedPlan resolved = resolve(model, plan, group.size(), group.name());
  for (const std::string& warning : resolved.warnings) {
    if (group.world().rank() == 0) fmt::print(stderr, "warning: {}\n", warning);
  }
  expect(!plan.async || plan.f8_linears.empty(), "pieces of matmuls are not rounded to f8");
  multiply_in_f8(model, plan.f8_linears);
  auto parallel = std::make_unique<TensorParallel>(group);
  if (group.size() == 1) return parallel;

  Divider divider(model, group, plan.async);
  for (const PlannedLayer& layer : resolved.layers) divider.divide(layer);
  if (plan.loss_parallel) {
    model.replace_loss(std::make_unique<LossParallelCrossEntropy>(group, resolved.layers.back().weight[0]));
  }
  parallel->find_partial_sums(model, resolved);
  return parallel;
}

void TensorParallel::find_partial_sums(Model& model, const ResolvedPlan& resolved) {
  PartialSums norms{group_, {}};
  std::map<int64_t, PartialSums> copies;  // by how many there are of each part
  for_each_parameter(model, [&](const std::string& path, Parameter& parameter) {
    if (!parameter.placement.is_held()) return;
    if (computes_on_rows(resolved.layers, path)) {
      parameter.placement.partial.push_back(group_.name());
      norms.parameters.push_back(&parameter);
    } else if (copies_of(parameter) > 1) {
      copies[copies_of(parameter)].parameters.push_back(&parameter);
    }
  });
  for (auto& [count, sums] : copies) {
    sums.group = holders_of_same_part(group_, count);
    partial_.push_back(std::move(sums));
  }
  if (!norms.parameters.empty()) partial_.push_back(std::move(norms));
}

int64_t TensorParallel::PartialSums::elements() const {
  const auto add = [](int64_t sum, const Parameter* p) { return sum + ninefold::elements(p->local_shape()); };
  return std::accumulate(parameters.begin(), parameters.end(), int64_t{0}, add);
}

void TensorParallel::reduce_gradients() const {
  for (const PartialSums& sums : partial_) {
    const DeviceHandle& device = group_.world().device();
    const MemoryScope scope(*device, MemoryKind::communication);
    const Tensor all = Tensor::empty(device, {sums.elements()}, Dtype::f32);
    const auto for_each_place = [&](const auto& visit) {
      int64_t offset = 0;
      for (const Parameter* parameter : sums.parameters) {
        const Tensor& gradient = parameter->owned.gradient;
        visit(gradient, all.slice(offset, gradient.shape()));
        offset += gradient.size();
      }
    };
    for_each_place([](const Tensor& gradient, const Tensor& place) { ops::copy_(place, gradient); });
    sums.group.labelled("partial gradients").all_reduce(all);
    for_each_place([](const Tensor& gradient, const Tensor& place) { ops::copy_(gradient, place); });
  }
}

void TensorParallel::predict_traffic(TrafficLedger& ledger, int64_t steps) const {
  for (const PartialSums& sums : partial_) {
    ledger.predict(sums.group.name(), Operation::all_reduce, steps,
                   sums.group.all_reduce_volume(sums.elements(), Dtype::f32));
  }
}

}  // namespace ninefold
