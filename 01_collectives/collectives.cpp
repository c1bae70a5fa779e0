#include "01_collectives/collectives.h"

#include <array>
#include <limits>

#include "01_collectives/executor/plan_work.h"

namespace ninefold::collectives {
namespace {

// Calls under way at once whose messages cannot be mistaken for each other's.
constexpr int calls_with_own_tags = ((1 << 15) - first_collective_tag) / max_lanes;

// The same on all ranks, so that they choose alike. No rank knows the whole of an uneven all_to_all.
int64_t whole_bytes(const Call& call) {
  if (!call.tensor().defined()) return 0;
  if (!call.in_counts.empty()) return std::numeric_limits<int64_t>::max();
  const bool only_out_is_whole = call.operation == Operation::all_gather || call.operation == Operation::recv;
  return only_out_is_whole ? call.out.bytes() : call.in.bytes();
}

// Whether the own part of the result is where the own contribution is.
bool is_in_place(const Call& call, int rank) {
  if (!call.in.defined() || !call.out.defined()) return false;
  const auto* in = static_cast<const std::byte*>(call.in.raw());
  const auto* out = static_cast<const std::byte*>(call.out.raw());
  if (call.operation == Operation::all_gather) return in == out + rank * call.in.bytes();
  if (call.operation == Operation::reduce_scatter) return in + rank * call.out.bytes() == out;
  return in == out && call.operation != Operation::all_to_all;
}

class PlannedCollectives : public Collectives {
 public:
  PlannedCollectives(Transport& transport, Chooser choose, bool sums_in_rank_order)
      : transport_(transport),
        rank_(transport.rank()),
        ranks_(transport.size()),
        choose_(std::move(choose)),
        sums_in_rank_order_(sums_in_rank_order) {}

  std::shared_ptr<Work> start(const Call& call) override {
    Chosen& chosen = choose(call);
    int tag = call.tag;
    if (!is_message(call)) {
      tag = first_collective_tag + next_call_ * max_lanes;
      if (++next_call_ == calls_with_own_tags) next_call_ = 0;
    }
    // Making one takes as long as half a small message.
    if (!chosen.work || chosen.work.use_count() > 1) {
      chosen.work = std::make_shared<PlanWork>(call, *chosen.plan, transport_, small_scratch_, chosen.segment_bytes);
    }
    chosen.work->begin(call, tag);
    return chosen.work;
  }

  Sent volume(const Call& call) const override {
    const Chosen& chosen = choose(call);
    return volume_of(call, *chosen.plan, rank_, ranks_, chosen.segment_bytes);
  }

  bool sends_by_itself(const Call&) const override { return false; }
  bool sums_in_rank_order() const override { return sums_in_rank_order_; }

 private:
  // Placed plans are kept: small messages would take less time than making them.
  struct Known {
    const Algorithm* algorithm;
    int peer;
    bool in_place;
    PlacedPlan plan;
  };
  // What all calls with these properties run.
  struct Chosen {
    int64_t bytes = -1;
    int peer = 0;
    bool in_place = false;
    Dtype dtype = Dtype::f32;
    const PlacedPlan* plan = nullptr;
    int64_t segment_bytes = 0;
    std::shared_ptr<PlanWork> work{};  // of the last call; made when one starts
  };

  static bool is_message(const Call& call) {
    return call.operation == Operation::send || call.operation == Operation::recv;
  }

  // Calls repeat, so the last choice for the operation is often the right one.
  Chosen& choose(const Call& call) const {
    const int64_t bytes = whole_bytes(call);
    const bool in_place = is_in_place(call, rank_);
    const Dtype dtype = call.tensor().dtype();
    Chosen& last = last_chosen_[static_cast<size_t>(call.operation)];
    const bool is_alike =
        last.bytes == bytes && last.peer == call.peer && last.in_place == in_place && last.dtype == dtype;
    if (is_alike && call.in_counts.empty()) return last;
    const Choice choice = choose_(call.operation, bytes, ranks_);
    const PlacedPlan& plan = plan_of(call, *choice.algorithm, in_place);
    const bool is_cut = !choice.algorithm->joins_chunks && !transport_.is_timed();
    return last = {bytes, call.peer, in_place, dtype, &plan, is_cut ? choice.segment_bytes : whole_chunks};
  }

  const PlacedPlan& plan_of(const Call& call, const Algorithm& algorithm, bool in_place) const {
    for (const auto& known : known_) {
      if (known->algorithm == &algorithm && known->peer == call.peer && known->in_place == in_place) return known->plan;
    }
    const Plan plan = algorithm.plan(rank_, ranks_, call.peer);
    known_.push_back(std::make_unique<Known>(
        Known{&algorithm, call.peer, in_place, placed(plan, {call.operation, rank_, ranks_, call.peer, in_place})}));
    return known_.back()->plan;
  }

  Transport& transport_;
  int rank_, ranks_;
  Chooser choose_;
  bool sums_in_rank_order_;
  int next_call_ = 0;
  SmallScratch small_scratch_;
  mutable std::vector<std::unique_ptr<Known>> known_;
  mutable std::array<Chosen, operation_count> last_chosen_;
};

}  // namespace

CollectivesFactory chosen_by(Chooser choose, bool sums_in_rank_order) {
  return [choose = std::move(choose), sums_in_rank_order](Transport& transport) -> std::unique_ptr<Collectives> {
    return std::make_unique<PlannedCollectives>(transport, choose, sums_in_rank_order);
  };
}

CollectivesFactory ours() { return chosen_by(fastest); }
CollectivesFactory ordered() { return chosen_by(in_rank_order, /*sums_in_rank_order=*/true); }

CollectivesFactory named(std::string_view name) {
  require(name == "ours" || name == "ordered" || name == "mpi" || name == "nccl",
          "collectives must be one of ours, ordered, mpi, nccl, not '{}'", name);
  if (name == "nccl") return nccl_collectives(ours());
  return name == "ours" ? ours() : name == "ordered" ? ordered() : mpi_collectives();
}

}  // namespace ninefold::collectives
