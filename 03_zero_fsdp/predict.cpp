#include "03_zero_fsdp/predict.h"

#include <algorithm>

namespace ninefold {
namespace {

// Runs through a step as the layers will, and keeps the account.
class Replay {
 public:
  Replay(const std::vector<UnitLayout>& units, const Walk& walk, const ShardingPolicy& policy)
      : units_(units),
        walk_(walk),
        policy_(policy),
        values_(units.size()),
        gradients_(units.size()),
        calls_(units.size()) {}

  void step(int64_t micro_batches) {
    for (int64_t i = 0; i < micro_batches; ++i) {
      forward();
      backward(policy_.reduce_each_micro_batch || i + 1 == micro_batches);
    }
    finish_reduce();
    for (size_t u = 0; policy_.stage < 3 && u < units_.size(); ++u) ++calls_[u].all_gathers;
  }

  int64_t peak() const { return peak_; }
  const std::vector<UnitCalls>& calls() const { return calls_; }

 private:
  void forward() {
    for (const auto& [place, enters] : walk_.visits()) {
      if (policy_.stage < 3) return;
      if (enters) gather(place, walk_.after(place, policy_.prefetch));
      if (!enters && !walk_.keeps_after_forward(place, policy_.reshard, true)) reshard(walk_.unit_at(place));
    }
  }

  void backward(bool reduces) {
    for (auto visit = walk_.visits().rbegin(); visit != walk_.visits().rend(); ++visit) {
      const size_t place = visit->place, unit = walk_.unit_at(place);
      if (!visit->enters) {
        if (policy_.stage == 3) gather(place, walk_.before(place, policy_.prefetch));
        provide_gradients(unit);
      } else if (walk_.is_first_of_unit(place)) {
        if (reduces) reduce(unit);
        if (policy_.stage == 3) reshard(unit);
      }
    }
  }

  void gather(size_t place, const std::vector<size_t>& ahead) {
    unshard(walk_.unit_at(place));
    for (const size_t unit : ahead) unshard(unit);
    wait_unsharded(walk_.unit_at(place));
  }
  void unshard(size_t unit) {
    if (values_[unit] != State::sharded) return;
    values_[unit] = State::unsharding;
    take(value_bytes(unit, policy_.types.gather));
    ++calls_[unit].all_gathers;
  }
  // Values that travel in another type than layers compute with exist twice for a moment.
  void wait_unsharded(size_t unit) {
    if (values_[unit] != State::unsharding) return;
    values_[unit] = State::unsharded;
    if (!policy_.types.quantizes()) return;
    take(value_bytes(unit, policy_.types.compute));
    take(-value_bytes(unit, policy_.types.gather));
  }
  void reshard(size_t unit) {
    wait_unsharded(unit);
    if (values_[unit] == State::unsharded) take(-value_bytes(unit, policy_.types.compute));
    values_[unit] = State::sharded;
  }
  void provide_gradients(size_t unit) {
    if (reducing_ == static_cast<int>(unit)) finish_reduce();
    if (policy_.stage == 1 || gradients_[unit]) return;
    gradients_[unit] = true;
    take(gradient_bytes(unit));
  }
  void reduce(size_t unit) {
    finish_reduce();
    reducing_ = static_cast<int>(unit);
    const Dtype reduced = policy_.types.reduce;
    const bool converts = reduced != policy_.types.gradient;
    held_ =
        (converts ? units_[unit].padded * size_of(reduced) : 0) +
        (converts || has_reduced(unit) || policy_.offloads_gradients() ? units_[unit].shard() * size_of(reduced) : 0);
    take(held_);
    ++calls_[unit].reduce_scatters;
  }
  void finish_reduce() {
    if (reducing_ < 0) return;
    take(-held_);
    const auto unit = static_cast<size_t>(std::exchange(reducing_, -1));
    if (gradients_[unit]) take(-gradient_bytes(unit));
    gradients_[unit] = false;
  }

  bool has_reduced(size_t unit) const { return calls_[unit].reduce_scatters > 0; }
  int64_t value_bytes(size_t unit, Dtype dtype) const { return units_[unit].padded * size_of(dtype); }
  int64_t gradient_bytes(size_t unit) const { return units_[unit].padded * size_of(policy_.types.gradient); }
  void take(int64_t bytes) { peak_ = std::max(peak_, now_ += bytes); }

  const std::vector<UnitLayout>& units_;
  const Walk& walk_;
  const ShardingPolicy& policy_;
  enum class State { sharded, unsharding, unsharded };
  std::vector<State> values_;
  std::vector<bool> gradients_;  // whole
  int reducing_ = -1;
  int64_t held_ = 0;  // by the reduction under way, beside the gradients
  int64_t now_ = 0, peak_ = 0;
  std::vector<UnitCalls> calls_;  // of this step
};

Replay replay(const std::vector<UnitLayout>& units, const Walk& walk, const ShardingPolicy& policy,
              int64_t micro_batches) {
  Replay result(units, walk, policy);
  result.step(micro_batches);
  return result;
}

}  // namespace

void predict_memory(MemoryByKind& bytes, const std::vector<UnitLayout>& units, const Walk& walk,
                    const ShardingPolicy& policy, int64_t micro_batches) {
  const auto of = [&](MemoryKind kind) -> int64_t& { return bytes[static_cast<size_t>(kind)]; };
  const auto& types = policy.types;
  int64_t values = 0, gradients = 0;
  for (const UnitLayout& unit : units) {
    values += policy.stage == 3 ? unit.shard() * size_of(types.stored) : unit.padded * size_of(types.compute);
    gradients += (policy.stage >= 2 ? unit.shard() : unit.padded) * size_of(types.gradient);
  }
  of(MemoryKind::parameters) = values;
  of(MemoryKind::gradients) = gradients;
  of(MemoryKind::gathered) = micro_batches > 0 ? replay(units, walk, policy, micro_batches).peak() : 0;
  if (policy.offloads_values()) of(MemoryKind::host) += std::exchange(of(MemoryKind::parameters), 0);
  if (policy.offloads_gradients()) of(MemoryKind::host) += std::exchange(of(MemoryKind::gradients), 0);
  if (policy.offloads_optimizer()) of(MemoryKind::host) += std::exchange(of(MemoryKind::optimizer), 0);
}

std::vector<UnitCalls> predict_calls(const std::vector<UnitLayout>& units, const Walk& walk,
                                     const ShardingPolicy& policy, int64_t micro_batches) {
  return replay(units, walk, policy, micro_batches).calls();
}

StateBytes zero_bytes(double parameters, int64_t ranks, int64_t stage, const ElementBytes& bytes) {
  const auto share = [&](int64_t from_stage) { return stage >= from_stage ? 1.0 / static_cast<double>(ranks) : 1.0; };
  return {bytes.parameter * parameters * share(3), bytes.gradient * parameters * share(2),
          bytes.optimizer * parameters * share(1)};
}

}  // namespace ninefold
