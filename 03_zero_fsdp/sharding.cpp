#include "03_zero_fsdp/sharding.h"

#include "03_zero_fsdp/fully_sharded.h"
#include "03_zero_fsdp/sharded_gradients.h"
#include "common/base/report.h"
#include "common/nn/replace.h"

namespace ninefold {
namespace {

// Tells the sharding when a layer of a unit is at work. Transparent in names.
class ShardedLayer : public Layer {
 public:
  ShardedLayer(std::unique_ptr<Layer> inner, Sharding& sharding, size_t place, Dtype compute)
      : inner_(std::move(inner)), sharding_(sharding), place_(place), compute_(compute) {}

  Tensor forward(const Tensor& x, Saved& saved) override {
    before_forward(saved);
    Tensor y = inner_->forward(in_compute_type(x), saved);
    sharding_.after_forward(place_, saved.step().training);
    return y;
  }
  // Where the serial layer adds inside its matmul, this one does: another pass would round otherwise.
  void forward_add(const Tensor& x, Saved& saved, const Tensor& sum) override {
    before_forward(saved);
    inner_->forward_add(in_compute_type(x), saved, sum);
    sharding_.after_forward(place_, saved.step().training);
  }

  Tensor backward(const Tensor& dy, Saved& saved) override {
    sharding_.before_backward(place_);
    Tensor dx = inner_->backward(dy, saved);
    sharding_.after_backward(place_);
    return dx;
  }
  void backward_add(const Tensor& dy, Saved& saved, const Tensor& dx) override {
    sharding_.before_backward(place_);
    inner_->backward_add(dy, saved, dx);
    sharding_.after_backward(place_);
  }

  void visit(Visitor& visitor) override { visitor.member("", *inner_); }

 private:
  void before_forward(Saved& saved) {
    require(!saved.step().recomputing,
            "the unit {} lies inside a layer that runs its forward again, which would gather it once more; make the "
            "layers that are run again units, or layers inside units",
            sharding_.name_of_unit_at(place_));
    sharding_.before_forward(place_);
  }

  // Token numbers stay what they are.
  Tensor in_compute_type(const Tensor& x) const {
    return x.dtype() == Dtype::i32 || x.dtype() == compute_ ? x : ops::cast(x, compute_);
  }

  std::unique_ptr<Layer> inner_;
  Sharding& sharding_;
  size_t place_;
  Dtype compute_;
};

}  // namespace

Sharding::Sharding(Model& model, const DataShards& groups, const ShardingPolicy& policy, Unit::Whole whole,
                   const DeviceHandle& device)
    : groups_(groups), policy_(policy) {
  ShardingPlan plan = plan_sharding(model, policy.wrap, groups_.shard);
  walk_ = plan.walk;
  for (const UnitPlan& unit : plan.units) {
    const ShardGroups own = groups.of(*unit.parameters.front());
    units_.push_back(
        std::make_unique<Unit>(layout_of(unit, own.shard.size()), unit.parameters, own, policy, whole, device));
    units_.back()->on_gradients_complete = [this, &reduced = *units_.back()] { start_reduce(reduced); };
  }
  // Of two units that are the same layer the first is entered first.
  for (auto unit = plan.units.rbegin(); unit != plan.units.rend(); ++unit) {
    for (const auto& [path, place] : unit->layers) {
      for_each_match(model, path, [&, place = place](const std::string&, std::unique_ptr<Layer>& slot) {
        slot = std::make_unique<ShardedLayer>(std::move(slot), *this, place, policy.types.compute);
      });
    }
  }
}

void Sharding::start_reduce(Unit& unit) {
  finish_reduce();
  reducing_ = &unit;
  unit.start_reduce();
}

void Sharding::finish_reduce() {
  if (!reducing_) return;
  reducing_->finish_reduce();
  if (!policy_.reduce_each_micro_batch) reducing_->start_all_reduce();
  reducing_ = nullptr;
}

void Sharding::reduce_gradients() {
  finish_reduce();
  for (const auto& unit : units_) {
    if (policy_.reduce_each_micro_batch) unit->start_all_reduce();
  }
  for (const auto& unit : units_) unit->finish_step();
}

std::string Sharding::description() const {
  Table table({"unit", "parameters", "elements", "padding", "elements of a shard"});
  for (const auto& unit : units_) {
    const UnitLayout& layout = unit->layout();
    table.add_row({layout.name, fmt::format("{}", layout.sizes.size()),
                   fmt::format("{}", layout.padded - layout.padding()), fmt::format("{}", layout.padding()),
                   fmt::format("{}", layout.shard())});
  }
  return table.text();
}

Numerics Sharding::numerics() const {
  const bool rounds_once = groups_.replicate.all().size() == 1 && !policy_.reduce_each_micro_batch;
  const bool rounds_alike = policy_.types.reduce == Dtype::f32 && (policy_.types.gradient == Dtype::f32 || rounds_once);
  const bool in_order = groups_.shard.all().sums_in_rank_order() && groups_.replicate.all().sums_in_rank_order();
  return in_order && rounds_alike ? Numerics::bit_identical : Numerics::bounded;
}

std::vector<UnitLayout> Sharding::layouts() const {
  std::vector<UnitLayout> layouts;
  for (const auto& unit : units_) layouts.push_back(unit->layout());
  return layouts;
}

void Sharding::predict_traffic(TrafficLedger& ledger, int64_t steps, int64_t micro_batches) const {
  const std::vector<UnitLayout> layouts = this->layouts();
  const std::vector<UnitCalls> calls = predict_calls(layouts, walk_, policy_, micro_batches);
  for (size_t unit = 0; unit < layouts.size(); ++unit) {
    const Group& shards = units_[unit]->groups().shard;
    if (shards.size() == 1) continue;
    const int64_t gathers = steps * calls[unit].all_gathers, reductions = steps * calls[unit].reduce_scatters;
    const int64_t whole = layouts[unit].padded;
    ledger.predict(shards.name(), Operation::all_gather, gathers,
                   shards.all_gather_volume(whole, policy_.types.gather));
    ledger.predict(shards.name(), Operation::reduce_scatter, reductions,
                   shards.reduce_scatter_volume(whole, policy_.types.reduce));
  }
  for (const Group& group : groups_.parts()) {
    if (group.size() == 1 || !policy_.types.quantizes()) continue;  // scales, before the first step and after each
    ledger.predict(group.name(), Operation::all_reduce, steps + 1,
                   group.all_reduce_volume(static_cast<int64_t>(layouts.size()), Dtype::i32));
  }
  for (size_t unit = 0; unit < layouts.size(); ++unit) {
    const Group& replicas = units_[unit]->groups().replicate;
    if (replicas.size() == 1) continue;
    ledger.predict(replicas.name(), Operation::all_reduce, steps,
                   replicas.all_reduce_volume(layouts[unit].shard(), policy_.types.gradient));
  }
}

Parallelism Sharding::parallelism(int64_t micro_batches) {
  Parallelism parallelism{
      .grouping = {.inner_ranks = groups_.shard.all().size(),
                   .each_micro_batch = policy_.reduce_each_micro_batch,
                   .in_f32 = policy_.types.reduce == Dtype::f32},
      .reduce_gradients = [this] { reduce_gradients(); },
      .after_update = [this] { after_update(); },
      .after_load = [this] { after_load(); },
      .predict_memory = [this, micro_batches](
                            MemoryByKind& bytes) { predict_memory(bytes, layouts(), walk_, policy_, micro_batches); },
      .predict_traffic = [this, micro_batches](TrafficLedger& ledger,
                                               int64_t steps) { predict_traffic(ledger, steps, micro_batches); },
      .optimizer_memory = policy_.offloads_optimizer() ? MemoryKind::host : MemoryKind::optimizer,
      .numerics = numerics()};
  if (policy_.types.quantizes()) {
    parallelism.round_as_gathered = [this](const auto& whole) { round_as_gathered(units_, whole); };
    parallelism.gather_error = [this] { return gather_error(units_, groups_.parts()); };
  }
  return parallelism;
}

std::unique_ptr<Sharding> shard(Model& model, const DataShards& groups, const ShardingPolicy& policy,
                                const DeviceHandle& device) {
  if (policy.stage == 1) return std::make_unique<ShardedOptimizer>(model, groups, policy, device);
  if (policy.stage == 2) return std::make_unique<ShardedGradients>(model, groups, policy, device);
  return std::make_unique<FullySharded>(model, groups, policy, device);
}

}  // namespace ninefold
