#include "01_collectives/collectives.h"

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
  return call.operation == Operation::all_gather ? call.out.bytes() : call.in.bytes();
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
      : transport_(transport), choose_(std::move(choose)), sums_in_rank_order_(sums_in_rank_order) {}

  std::unique_ptr<Work> start(const Call& call) override {
    const Choice choice = choose(call);
    int tag = call.tag;
    if (!is_message(call)) {
      tag = first_collective_tag + next_call_ * max_lanes;
      next_call_ = (next_call_ + 1) % calls_with_own_tags;
    }
    return std::make_unique<PlanWork>(call, plan_of(call, choice), transport_, small_scratch_, choice.segment_bytes,
                                      tag);
  }

  Volume volume(const Call& call) const override {
    const Choice choice = choose(call);
    return volume_of(call, plan_of(call, choice), transport_.rank(), transport_.size(), choice.segment_bytes);
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

  static bool is_message(const Call& call) {
    return call.operation == Operation::send || call.operation == Operation::recv;
  }

  Choice choose(const Call& call) const {
    Choice choice = choose_(call.operation, whole_bytes(call), transport_.size());
    if (choice.algorithm->joins_chunks || transport_.is_timed()) choice.segment_bytes = whole_chunks;
    return choice;
  }

  const PlacedPlan& plan_of(const Call& call, const Choice& choice) const {
    const int rank = transport_.rank(), ranks = transport_.size();
    const bool in_place = is_in_place(call, rank);
    for (const auto& known : known_) {
      if (known->algorithm == choice.algorithm && known->peer == call.peer && known->in_place == in_place) {
        return known->plan;
      }
    }
    const Plan plan = choice.algorithm->plan(rank, ranks, call.peer);
    known_.push_back(std::make_unique<Known>(Known{choice.algorithm, call.peer, in_place,
                                                   placed(plan, {call.operation, rank, ranks, call.peer, in_place})}));
    return known_.back()->plan;
  }

  Transport& transport_;
  Chooser choose_;
  bool sums_in_rank_order_;
  int next_call_ = 0;
  SmallScratch small_scratch_;
  mutable std::vector<std::unique_ptr<Known>> known_;
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
  require(name == "ours" || name == "ordered" || name == "mpi",
          "collectives must be one of ours, ordered, mpi, not '{}'", name);
  return name == "ours" ? ours() : name == "ordered" ? ordered() : mpi_collectives();
}

}  // namespace ninefold::collectives
